"""The tensors of a model file, in GGUF or Hugging Face format."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from sparing.kernels.block_types import BLOCKS
from sparing.kernels.blocks import Codes, decode, floats
from sparing.model.checkpoint import open_gguf
from sparing.model.config import ModelConfig
from sparing.model.gguf import GgufTensor
from sparing.model.gguf_config import gguf_name, row_order
from sparing.model.matrix import FLOAT_TYPES
from sparing.model.packed_linear import PackedLinear
from sparing.model.weights import Checkpoint


@dataclass(frozen=True)
class Stored:
    """A matrix ``[rows, columns]`` in blocks of ``type``."""

    type: str
    rows: int
    columns: int
    data: np.ndarray  # uint8, row after row
    order: np.ndarray | None = None  # int32, the file's row of each row; None: the same

    @property
    def row_bytes(self) -> int:
        return BLOCKS[self.type].row_bytes(self.columns)

    @property
    def is_float(self) -> bool:
        return self.type in FLOAT_TYPES.values()

    def floats(self, dtype: torch.dtype) -> Tensor:
        """The values of a float type."""
        return floats(self.type, self._in_order(), self.columns).to(dtype)

    def codes(self) -> Codes:
        """The codes and scales of a packed type."""
        return decode(self.type, self._in_order(), self.columns)

    def _in_order(self) -> np.ndarray:
        rows = self.data.reshape(self.rows, self.row_bytes)
        return rows if self.order is None else rows[self.order]


@runtime_checkable
class Tensors(Protocol):
    """A model's tensors by their names in transformers."""

    def matrix(self, name: str) -> Stored: ...

    def shape(self, name: str) -> tuple[str, int, int]:
        """Type, rows and columns of a matrix, without reading it."""
        ...

    def vector(self, name: str) -> Float32[Tensor, " n"]: ...

    def release(self, name: str, size: int) -> None:
        """Give back the memory of a matrix's first ``size`` bytes."""
        ...


class GgufTensors:
    """The tensors of a GGUF: views into the file."""

    def __init__(self, path: Path, config: ModelConfig) -> None:
        self.gguf, self.config = open_gguf(path), config

    def matrix(self, name: str) -> Stored:
        return Stored(*self.shape(name), self._tensor(name).data, row_order(self.config, name))

    def shape(self, name: str) -> tuple[str, int, int]:
        tensor = self._tensor(name)
        rows, columns = tensor.shape
        return tensor.type, rows, columns

    def vector(self, name: str) -> Float32[Tensor, " n"]:
        tensor = self._tensor(name)
        found = floats(tensor.type, tensor.data[None], tensor.shape[0])[0].float()
        # the biases of q and k are in the order of their rows
        order = row_order(self.config, name)
        return (found if order is None else found[torch.from_numpy(order).long()]).contiguous()

    def release(self, name: str, size: int) -> None:
        self.gguf.release(self._tensor(name), size)

    def _tensor(self, name: str) -> GgufTensor:
        return self.gguf.tensors[gguf_name(name)]


class CheckpointTensors:
    """The tensors of safetensors files: copies, one tensor at a time.

    ``reordered``: packed matrices in act-order
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.reordered = set[str]()
        self._types: dict[str, str] = {}  # of packed matrices

    def matrix(self, name: str) -> Stored:
        if packed := self.checkpoint.packed(name):
            type = self._type(name, packed)
            return Stored(type, packed.rows, packed.columns, packed.blocks(type))
        tensor = self.checkpoint(name)
        if tensor.dtype not in FLOAT_TYPES:
            tensor = tensor.float()
        rows, columns = tensor.shape
        data = tensor.contiguous().view(torch.uint8).numpy().reshape(-1)
        return Stored(FLOAT_TYPES[tensor.dtype], rows, columns, data)

    def shape(self, name: str) -> tuple[str, int, int]:
        if packed := self.checkpoint.packed(name):
            return self._type(name, packed), packed.rows, packed.columns
        dtype, (rows, columns) = self.checkpoint.described(name)
        return dtype if dtype in FLOAT_TYPES.values() else "F32", rows, columns

    def vector(self, name: str) -> Float32[Tensor, " n"]:
        return self.checkpoint(name).float()

    def release(self, name: str, size: int) -> None:
        pass

    def _type(self, name: str, packed: PackedLinear) -> str:
        if name not in self._types:
            self._types[name] = packed.type()
            if self._types[name] == "Q8_0":
                self.reordered.add(name)
        return self._types[name]
