"""Build a Decoder from a model's file: compiled or torch, each matrix in its precision."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparing.errors import ModelError, OptionError
from sparing.kernels.block_types import BLOCKS
from sparing.kernels.blocks import encode
from sparing.kernels.blocks import weights as unpacked
from sparing.kernels.native import NO_KERNELS, NO_LANES, announce, load_build
from sparing.kernels.packed import Arena, KernelMatrix, Kernels, packed_bytes
from sparing.kernels.twin import PackedMatrix
from sparing.model.checkpoint import read_config
from sparing.model.compiled import CompiledDecoder
from sparing.model.config import ModelConfig
from sparing.model.decoder import MATRICES, Decoder, Layer
from sparing.model.gguf_files import is_gguf
from sparing.model.matrix import Matrix, PlainMatrix
from sparing.model.precision import announce_slow
from sparing.model.progress import LoadProgress
from sparing.model.tensors import CheckpointTensors, GgufTensors, Stored, Tensors
from sparing.model.torch_decoder import TorchDecoder
from sparing.model.weights import EMBEDDING, HEAD, Checkpoint

WEIGHTS = {
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "q8_0": "Q8_0",
    "q5_1": "Q5_1",
    "q5_0": "Q5_0",
    "q4_1": "Q4_1",
    "q4_0": "Q4_0",
}
TORCH = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NORM = "model.norm.weight"
LANES = 8  # of the kernels' vectors
PARTS = dict(  # a layer's matrix: field of Layer -> name in the checkpoint
    zip(
        MATRICES,
        (
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.o_proj",
            "mlp.gate_proj",
            "mlp.up_proj",
            "mlp.down_proj",
        ),
        strict=True,
    )
)

Build = Callable[[str, Tensor | None], Matrix]  # from a tensor's name and a bias
Vector = Callable[[str], Tensor]


def load_decoder(
    path: Path,
    weights: str = "auto",
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    *,
    compiled: bool = True,
) -> Decoder:
    """Read a GGUF or a Hugging Face checkpoint, matrix by matrix.

    ``weights``: a precision of ``WEIGHTS`` for float matrices; auto keeps the file's
    ``dtype``: of hidden states; any other than float32 makes the decoder a torch one
    ``device``: any other than the CPU makes the decoder a torch one
    ``compiled``: False makes the decoder a torch one

    Raises ModelError if config or weights cannot be used, OptionError if ``weights`` is not auto
    for a packed matrix.
    """
    config = read_config(path)
    if compiled and dtype is not None:
        announce_slow(dtype, device, kernels=True)
    in_torch = not compiled or dtype not in (None, torch.float32) or device != "cpu"
    in_torch = in_torch or config.head_dim % LANES != 0
    kernels = None
    if not in_torch:
        found = load_build()
        if found is None:
            announce(NO_KERNELS)
        else:
            if found.name == "plain":
                announce(NO_LANES)
            kernels = Kernels(found, torch.get_num_threads())
    with opened(path, config) as (tensors, config):
        assembly = Assembly(config, tensors, weights, path.name)
        if kernels is None:
            return assembly.torch_decoder(dtype or torch.float32, device)
        return assembly.compiled_decoder(kernels)


@contextmanager
def opened(path: Path, config: ModelConfig) -> Iterator[tuple[Tensors, ModelConfig]]:
    """Open a model's tensors; the config is untied if the checkpoint has a head of its own."""
    if is_gguf(path):
        yield GgufTensors(path, config), config
        return
    with Checkpoint(path, config) as checkpoint:
        tied = config.tied and not checkpoint.has_own_head
        tensors = CheckpointTensors(checkpoint)
        yield tensors, replace(config, tied=tied)
        if tensors.reordered:
            announce(
                f"{len(tensors.reordered)} matrices of {path.name} were packed in act-order: they "
                "are rounded once more, to 8 bits"
            )


class Assembly:
    """Builds a Decoder in the precision ``weights``; ``name`` is for the messages."""

    def __init__(self, config: ModelConfig, tensors: Tensors, weights: str, name: str) -> None:
        self.config, self.tensors, self.weights, self.name = config, tensors, weights, name
        self.kept = set[str]()  # float matrices with a width that is no multiple of the block

    def compiled_decoder(self, kernels: Kernels) -> CompiledDecoder:
        sizes = []
        for name in self._names():
            stored, rows, columns = self.tensors.shape(name)
            type = self._type(name, stored, columns)
            sizes.append(packed_bytes(kernels.native, type, rows, columns))
        arena = Arena(Arena.size(sizes))

        def build(name: str, bias: Tensor | None) -> KernelMatrix:
            stored = self.tensors.matrix(name)
            type = self._type(name, stored.type, stored.columns)
            matrix = KernelMatrix(kernels, type, stored.rows, stored.columns, bias, arena)
            done = partial(self.tensors.release, name)
            matrix.pack(stored.type, stored.data, stored.row_bytes, stored.order, done)
            return matrix

        def vector(name: str) -> Tensor:
            return self.tensors.vector(name).contiguous()

        layers, embedding, head = self._parts(build, vector)
        return CompiledDecoder(kernels, self.config, layers, embedding, head, vector(NORM))

    def torch_decoder(self, dtype: torch.dtype, device: str) -> TorchDecoder:
        def build(name: str, bias: Tensor | None) -> Matrix:
            stored = self.tensors.matrix(name)
            type = self._type(name, stored.type, stored.columns)
            if stored.is_float and type in BLOCKS and type not in TORCH:
                data = encode(type, stored.floats(torch.float32)).numpy().reshape(-1)
                stored = Stored(type, stored.rows, stored.columns, data)
            if not stored.is_float and dtype == torch.float32:
                return PackedMatrix(stored.type, stored.codes(), bias)
            if not stored.is_float:  # another dtype is for exactness, so unpack: no rounded inputs
                return PlainMatrix(unpacked(stored.codes()).to(dtype).to(device), bias)
            rounded = stored.floats(TORCH[type])
            return PlainMatrix(rounded.to(dtype).to(device), bias)

        def vector(name: str) -> Tensor:
            return self.tensors.vector(name).to(dtype).to(device)

        layers, embedding, head = self._parts(build, vector)
        return TorchDecoder(self.config, layers, embedding, head, vector(NORM))

    def _parts(self, build, vector):
        """Layers, embedding and head; a tied head is the embedding's matrix."""
        with LoadProgress(self.name, len(self._names())) as progress:

            def matrix(name: str, bias: bool = False) -> Matrix:
                try:
                    found = build(f"{name}.weight", vector(f"{name}.bias") if bias else None)
                except ValueError as error:  # floats that cannot be quantized
                    raise ModelError(f"{self.name}, {name}.weight: {error}") from None
                progress.advance()
                return found

            layers = [self._layer(index, matrix, vector) for index in range(self.config.layers)]
            embedding = matrix(EMBEDDING.removesuffix(".weight"))
            head = embedding if self.config.tied else matrix(HEAD.removesuffix(".weight"))
        if self.kept:
            print(
                f"sparing: {len(self.kept)} matrices of {self.name} stay floats: their width is no "
                f"multiple of {self.weights}'s block of 32",
                file=sys.stderr,
            )
        return layers, embedding, head

    def _layer(self, index: int, matrix: Callable[..., Any], vector: Vector) -> Layer:
        prefix, config = f"model.layers.{index}", self.config
        biased = dict.fromkeys(("query", "key", "value"), config.qkv_bias)
        biased |= {"output": config.output_bias}
        norms = {
            "attention_norm": "input_layernorm",
            "mlp_norm": "post_attention_layernorm",
        }
        if config.qk_norm:
            norms |= {"query_norm": "self_attn.q_norm", "key_norm": "self_attn.k_norm"}
        matrices: dict[str, Any] = {
            name: matrix(f"{prefix}.{part}", biased.get(name, config.mlp_bias))
            for name, part in PARTS.items()
        }
        vectors: dict[str, Any] = {
            name: vector(f"{prefix}.{part}.weight") for name, part in norms.items()
        }
        return Layer(**matrices, **vectors)

    def _names(self) -> list[str]:
        layers = range(self.config.layers)
        inner = [f"model.layers.{i}.{part}.weight" for i in layers for part in PARTS.values()]
        return [*inner, EMBEDDING, *([] if self.config.tied else [HEAD])]

    def _type(self, name: str, stored: str, columns: int) -> str:
        """The precision of a matrix in the decoder, from its type ``stored`` in the file."""
        wanted = WEIGHTS.get(self.weights, stored)
        if wanted == stored:
            return stored
        if stored not in TORCH:
            raise OptionError(
                f"weights must be auto for a file with packed matrices, got {self.weights} "
                f"for {stored}; take another file for another precision"
            )
        if columns % BLOCKS[wanted].weights:
            self.kept.add(name)
            return stored
        return wanted
