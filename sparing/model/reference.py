"""A transformers model behind the Decoder's protocol.

It is the oracle of the tests, and runs architectures unknown to the Decoder, slowly.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sparing.errors import ModelError, reason
from sparing.model.attention import additive_mask
from sparing.model.checkpoint import read_model
from sparing.model.config import Shape, refuse_sliding_windows
from sparing.model.inputs import KeyValues, Output, RowInput
from sparing.model.layer_set import LayerSet
from sparing.model.precision import announce_slow


class ReferenceDecoder:
    """Runs one row at a time through transformers, with a cache copied from ours every pass."""

    def __init__(self, model: Any) -> None:
        refuse_sliding_windows(model.config)
        self.model, self.shape = model.eval(), Shape.of(model.config)
        self.dtype, self.device = model.dtype, model.device
        self.cache_dtype = self.dtype

    @classmethod
    def load(
        cls,
        directory: Path,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> "ReferenceDecoder":
        """Load any causal model with full attention.

        Raises ModelError if transformers cannot load it, or its cache has another form than ours.
        """
        announce_slow(dtype, device, kernels=False)
        try:
            model = read_model(directory, dtype, attn_implementation="sdpa")
            decoder = cls(model.to(device))
            decoder.check_cache()
        except ModelError:
            raise
        except Exception as error:  # the parts of transformers raise many types
            raise ModelError(
                f"{directory} must load in transformers, got: {reason(error)}"
            ) from None
        return decoder

    @torch.inference_mode()
    def check_cache(self) -> None:
        """Raise ValueError unless a slot is one key and one value a head."""
        from transformers import DynamicCache

        past, slot = DynamicCache(), (1, self.shape.kv_heads, 1, self.shape.head_dim)
        self.model(torch.tensor([[0]], device=self.device), past_key_values=past)
        for layer in past.layers:
            found = tuple(layer.keys.shape), tuple(layer.values.shape)
            if found != (slot, slot):
                raise ValueError(f"keys and values of a slot must be {slot}, got {found}")

    @property
    def step_bytes(self) -> int:
        """Bytes of weights read in one step: all but an untied embedding."""
        table = self.model.get_input_embeddings().weight
        tied = table is self.model.get_output_embeddings().weight
        return sum(p.nbytes for p in self.model.parameters()) - (0 if tied else table.nbytes)

    @torch.inference_mode()
    def __call__(
        self,
        inputs: Sequence[RowInput],
        cache: KeyValues,
        layer_set: LayerSet | None = None,
        *,
        layer: int | None = None,
    ) -> Output:
        """As ``Decoder.__call__``; raises ValueError for a layer set that skips anything."""
        if layer_set is not None and layer_set.skipped:
            raise ValueError("the reference decoder runs every sub-layer; pass layer_set=None")
        if any(i.attended for i in inputs):
            self.model.set_attn_implementation("eager")  # sdpa returns no maps
        rows = [self._row(i, cache) for i in inputs]
        states = [output.hidden_states for output in rows]
        return Output(
            hidden=torch.cat([state[-1][0] for state in states]),
            logits=torch.cat(
                [
                    output.logits[0, len(i.ids) - i.scored :]
                    for output, i in zip(rows, inputs, strict=True)
                ]
            ),
            layer_hidden=None
            if layer is None
            else torch.cat([state[layer][0] for state in states]),
            attention=[mean_attention(output, i) for output, i in zip(rows, inputs, strict=True)]
            if any(i.attended for i in inputs)
            else [],
        )

    def _row(self, i: RowInput, cache: KeyValues) -> Any:
        """Run one row's new tokens and write their keys and values to the cache."""
        from transformers import DynamicCache

        past = DynamicCache()
        begin, end = i.cached, i.cached + len(i.ids)
        if begin:
            for index, (keys, values) in enumerate(cache.kv):
                past.update(
                    keys[i.row : i.row + 1, :, :begin], values[i.row : i.row + 1, :, :begin], index
                )
        embeddings = self._embed(i)
        output = self.model(
            inputs_embeds=embeddings,
            position_ids=torch.tensor([i.positions], device=self.device),
            attention_mask=additive_mask([i], len(i.ids), end, embeddings),
            past_key_values=past,
            output_hidden_states=True,
            output_attentions=i.attended > 0,
        )
        for layer, (keys, values) in enumerate(cache.kv):
            keys[i.row, :, begin:end] = past.layers[layer].keys[0, :, begin:end]
            values[i.row, :, begin:end] = past.layers[layer].values[0, :, begin:end]
        return output

    def _embed(self, i: RowInput) -> Float[Tensor, "1 T E"]:
        x = self.model.get_input_embeddings()(torch.tensor([i.ids], device=self.device))
        for offset, vector in i.vectors.items():
            x[0, offset] = vector
        return x


def mean_attention(output: Any, i: RowInput) -> Float[Tensor, "m S"]:
    """Attention weights of the row's ``attended`` last tokens: the mean over layers and heads."""
    if not i.attended:
        return torch.zeros(0, i.cached + len(i.ids))
    return torch.stack([a[0, :, -i.attended :].mean(0) for a in output.attentions]).mean(0)
