"""The weight matrices of the decoders: one interface for every precision."""

from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

FLOAT_TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


@runtime_checkable
class WithRows(Protocol):
    """What embeddings are read from."""

    def rows(self, ids: Int[Tensor, " K"]) -> Float[Tensor, "K in"]:
        """The rows ``ids`` as floats."""
        ...


@runtime_checkable
class Matrix(WithRows, Protocol):
    """A weight ``[out, in]``; ``type`` is its precision by GGUF's name, such as F32 or Q4_K."""

    type: str

    def __call__(self, x: Float[Tensor, "N in"]) -> Float[Tensor, "N out"]:
        """x W^T + b"""
        ...

    def take(self, ids: Int[Tensor, " K"]) -> "Matrix":
        """A matrix of the rows ``ids``, in the same precision."""
        ...

    def put(self, place: int, source: Any, row: int) -> None:
        """Replace row ``place`` by row ``row`` of ``source``, the matrix of ``take``."""
        ...

    @property
    def nbytes(self) -> int: ...


class PlainMatrix:
    """Floats as a tensor ``[out, in]``, multiplied by torch."""

    def __init__(
        self, weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"] | None = None
    ) -> None:
        self.weight, self.bias = weight, bias
        self.type = FLOAT_TYPES.get(weight.dtype, "F64")

    def __call__(self, x: Float[Tensor, "N in"]) -> Float[Tensor, "N out"]:
        return F.linear(x, self.weight, self.bias)

    def rows(self, ids: Int[Tensor, " K"]) -> Float[Tensor, "K in"]:
        return self.weight[ids]

    def take(self, ids: Int[Tensor, " K"]) -> "PlainMatrix":
        return PlainMatrix(self.weight[ids], None if self.bias is None else self.bias[ids])

    def put(self, place: int, source: Any, row: int) -> None:
        assert isinstance(source, PlainMatrix)
        self.weight[place] = source.weight[row]

    @property
    def nbytes(self) -> int:
        return storage_bytes(self.weight, self.bias)


def storage_bytes(*tensors: Tensor | None) -> int:
    return sum(t.untyped_storage().nbytes() for t in tensors if t is not None)
