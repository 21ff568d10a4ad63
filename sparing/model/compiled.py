"""A pass in one compiled call (kernels/src/pass.h).

A token's result is bit for bit the same alone and in a batch.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sparing.kernels import native as structs
from sparing.kernels.packed import KernelMatrix, Kernels
from sparing.model.config import ModelConfig
from sparing.model.decoder import MATRICES, Decoder, Layer
from sparing.model.inputs import Batch, KeyValues, Output, RowInput
from sparing.model.layer_set import LayerSet
from sparing.model.matrix import Matrix

STORED = {torch.float32: 0, torch.float16: 1, torch.int8: 2}  # as in src/attention.h


class CompiledDecoder(Decoder):
    """A Decoder in compiled float32; weights, keys and values may have fewer bits."""

    torch_threads = 1

    def __init__(
        self,
        kernels: Kernels,
        config: ModelConfig,
        layers: list[Layer],
        embedding: KernelMatrix,
        head: KernelMatrix,
        norm: Float[Tensor, " E"],
    ) -> None:
        super().__init__(config, layers, embedding, head, norm)
        self.kernels = kernels
        self._frequencies = config.inverse_frequencies.float().contiguous()
        self._layers = (structs.LayerStruct * config.layers)(*(as_struct(x) for x in layers))
        self._model = structs.ModelStruct(
            config.layers,
            config.width,
            config.heads,
            config.kv_heads,
            config.head_dim,
            config.mlp_width,
            config.norm_eps,
            config.rope_scale,
            self._frequencies.data_ptr(),
            norm.data_ptr(),
            self._layers,
            embedding.struct,
        )

    def __call__(
        self,
        inputs: Sequence[RowInput],
        cache: KeyValues,
        layer_set: LayerSet | None = None,
        *,
        layer: int | None = None,
        head: Matrix | None = None,
    ) -> Output:
        config, batch = self.config, Batch.of(inputs)
        head = head or self.head
        assert isinstance(head, KernelMatrix)
        wanted = -1 if layer is None else range(config.layers + 1)[layer]
        inner = 0 <= wanted < config.layers
        hidden = torch.empty(batch.tokens, config.width)
        kept = torch.empty(batch.tokens, config.width) if inner else None
        logits = torch.empty(len(batch.scored), head.struct.rows)
        argmax = torch.empty(len(batch.scored), dtype=torch.int32)
        confidence = torch.empty(len(batch.scored))
        attention = [torch.zeros(i.attended, i.cached + len(i.ids)) for i in inputs]
        watching = any(i.attended for i in inputs)
        vectors = [v.float() for i in inputs for v in i.vectors.values()]
        values = torch.stack(vectors).contiguous() if vectors else None
        flags = [] if layer_set is None else [layer_set.attention, layer_set.mlp]
        runs = [np.array(of_layers, np.uint8) for of_layers in flags]
        seen = [None if i.ancestors is None else i.ancestors.contiguous() for i in inputs]
        b = structs.BatchStruct(
            len(inputs),
            batch.tokens,
            len(vectors),
            len(batch.scored),
            *(at(a) for a in (batch.ids, batch.positions, batch.row, batch.count)),
            *(at(a) for a in (batch.cached, batch.visible, batch.attended)),
            pointers(seen) if any(s is not None for s in seen) else None,
            pointers(attention) if watching else None,
            at(batch.vector_tokens),
            at(values),
            at(batch.scored),
            *(at(run) for run in runs or (None, None)),
            wanted if inner else -1,
        )
        output = structs.OutputStruct(*map(at, (hidden, kept, logits, argmax, confidence)))
        self.kernels.native.run(
            self.kernels.context,
            ctypes.byref(self._model),
            ctypes.byref(b),
            ctypes.byref(as_cache(cache)),
            ctypes.byref(head.struct),
            ctypes.byref(output),
        )
        return Output(
            hidden=hidden,
            logits=logits,
            layer_hidden=hidden if wanted == config.layers else kept,
            attention=attention if watching else [],
            top=(argmax, confidence),
        )


def at(array: np.ndarray | Tensor | None) -> int | None:
    """The address of an array's first element."""
    if array is None:
        return None
    return array.data_ptr() if isinstance(array, Tensor) else array.ctypes.data


def pointers(arrays: Sequence[Tensor | None]) -> Any:
    """An array of pointers; it must live as long as the call."""
    found = (ctypes.c_void_p * len(arrays))(*(at(array) for array in arrays))
    return ctypes.cast(found, ctypes.c_void_p)


def as_struct(layer: Layer) -> structs.LayerStruct:
    found = structs.LayerStruct(*(at(getattr(layer, name)) for name in structs.NORMS))
    for name in MATRICES:
        setattr(found, name, getattr(layer, name).struct)
    return found


def as_cache(cache: KeyValues) -> structs.CacheStruct:
    kv, scales = cache.kv, cache.scales
    _, rows, _, slots, _ = kv[0].shape
    assert kv[0].is_contiguous()
    layers = pointers(kv)
    return structs.CacheStruct(
        STORED[kv[0].dtype], rows, slots, layers, pointers(scales) if scales else None
    )
