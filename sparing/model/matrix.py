"""Matrix products as objects, and the choice of the fastest kind for each by timing.

``matrix(x, scale)`` is ``scale x W^T + b`` (the norm of a lone token is a number that goes along),
``matrix.add(y, x)`` is ``y += x W^T + b``, as the residual is, for x ``[N, in]`` and y
``[N, out]``. Kinds differ in how the weight lies in memory; each holds it once. Which wins depends
on the machine, the size and the number of rows, so it is measured.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Weight = Float[Tensor, "out in"]
Bias = Float[Tensor, " out"] | None
TIMED_ROWS = (1, 8)  # a plain step, and the verification of a draft
TIMED_MATRICES = 6  # of a shape
TIMED_REPEATS = 5
FLUSHED_BYTES = 1 << 27


@runtime_checkable
class Matrix(Protocol):
    """A weight that multiplies rows."""

    kind: str

    def __call__(self, x: Float[Tensor, "N in"], scale: float = 1.0) -> Float[Tensor, "N out"]: ...

    def add(self, y: Float[Tensor, "N out"], x: Float[Tensor, "N in"]) -> None: ...

    def rows(self, ids: Int[Tensor, " K"]) -> Float[Tensor, "K in"]:
        """The weight's rows: what scores the outputs ``ids``."""
        ...

    @property
    def nbytes(self) -> int: ...


class PlainMatrix:
    """The weight as the checkpoint has it, ``[out, in]``, through ``F.linear``."""

    kind = "plain"

    def __init__(self, weight: Weight, bias: Bias = None) -> None:
        self.weight, self.bias = weight, bias

    def __call__(self, x: Float[Tensor, "N in"], scale: float = 1.0) -> Float[Tensor, "N out"]:
        return F.linear(scaled(x, scale), self.weight, self.bias)

    def add(self, y: Float[Tensor, "N out"], x: Float[Tensor, "N in"]) -> None:
        y += self(x)

    def rows(self, ids: Int[Tensor, " K"]) -> Float[Tensor, "K in"]:
        return self.weight[ids]

    @property
    def nbytes(self) -> int:
        return storage_bytes(self.weight, self.bias)


class TransposedMatrix:
    """The weight as ``[in, out]``: better than plain at a few rows, cheapest to call."""

    kind = "transposed"

    def __init__(self, weight: Weight, bias: Bias = None) -> None:
        self.weight, self.bias = weight.t().contiguous(), bias
        self._zero = weight.new_zeros(1)

    def __call__(self, x: Float[Tensor, "N in"], scale: float = 1.0) -> Float[Tensor, "N out"]:
        if self.bias is not None:
            return torch.addmm(self.bias, x, self.weight, alpha=scale)
        if scale == 1:
            return torch.mm(x, self.weight)
        return torch.addmm(self._zero, x, self.weight, beta=0, alpha=scale)

    def add(self, y: Float[Tensor, "N out"], x: Float[Tensor, "N in"]) -> None:
        y.addmm_(x, self.weight)
        if self.bias is not None:
            y += self.bias

    def rows(self, ids: Int[Tensor, " K"]) -> Float[Tensor, "K in"]:
        return self.weight[:, ids].t().contiguous()

    @property
    def nbytes(self) -> int:
        return storage_bytes(self.weight, self.bias)


class BlockedMatrix:
    """The weight as ``[P, in, out / P]``, one small product a block, dealt out to the threads.

    A block's columns stay in a core's cache over all rows: 8 rows cost some 1.5 of one.
    """

    def __init__(self, weight: Weight, bias: Bias = None, blocks: int = 16) -> None:
        """``blocks`` is brought down to the next divisor of the number of outputs."""
        self.kind = f"blocked{blocks}"
        out, width = weight.shape
        self.blocks = next(p for p in range(min(blocks, out), 0, -1) if out % p == 0)
        split = weight.view(self.blocks, out // self.blocks, width)
        self.weight = split.transpose(1, 2).contiguous()
        self.bias = bias

    def __call__(self, x: Float[Tensor, "N in"], scale: float = 1.0) -> Float[Tensor, "N out"]:
        y = torch.bmm(scaled(x, scale).expand(self.blocks, -1, -1), self.weight)
        y = y.transpose(0, 1).flatten(1)
        return y if self.bias is None else y.add_(self.bias)

    def add(self, y: Float[Tensor, "N out"], x: Float[Tensor, "N in"]) -> None:
        y += self(x)

    def rows(self, ids: Int[Tensor, " K"]) -> Float[Tensor, "K in"]:
        size = self.weight.shape[2]
        return self.weight[ids // size, :, ids % size]

    @property
    def nbytes(self) -> int:
        return storage_bytes(self.weight, self.bias)


class PackedMatrix:
    """The weight in oneDNN's blocked layout: best for many outputs, some 20 us a call."""

    kind = "packed"

    def __init__(self, weight: Weight, bias: Bias = None) -> None:
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, max(TIMED_ROWS))
        self.bias, self._bytes = bias, weight.nbytes + (0 if bias is None else bias.nbytes)

    def __call__(self, x: Float[Tensor, "N in"], scale: float = 1.0) -> Float[Tensor, "N out"]:
        x = scaled(x, scale)
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")

    def add(self, y: Float[Tensor, "N out"], x: Float[Tensor, "N in"]) -> None:
        y += self(x)

    def rows(self, ids: Int[Tensor, " K"]) -> Float[Tensor, "K in"]:
        return self.weight.to_dense()[ids]

    @property
    def nbytes(self) -> int:
        return self._bytes


KINDS: dict[str, Callable[[Weight, Bias], Matrix]] = {
    "plain": PlainMatrix,
    "transposed": TransposedMatrix,
    "blocked4": partial(BlockedMatrix, blocks=4),
    "blocked12": partial(BlockedMatrix, blocks=12),
    "blocked16": partial(BlockedMatrix, blocks=16),
    "packed": PackedMatrix,
}


def scaled(x: Float[Tensor, "N in"], scale: float) -> Float[Tensor, "N in"]:
    return x if scale == 1 else x * scale


def storage_bytes(*tensors: Tensor | None) -> int:
    return sum(t.untyped_storage().nbytes() for t in tensors if t is not None)


def runs(kind: str, dtype: torch.dtype, device: str = "cpu") -> bool:
    """Whether the processor has this kind of product: oneDNN's layouts want instructions of it."""
    if kind == "packed" and torch.device(device).type != "cpu":
        return False
    weight = torch.zeros(32, 32, dtype=dtype, device=device)
    try:
        KINDS[kind](weight, None)(weight)
    except RuntimeError:
        return False
    return True


def fastest_kind(sample: Sequence[tuple[Weight, Bias]], model_bytes: int) -> str:
    """The kind with the smallest geometric mean of seconds over ``TIMED_ROWS``, for one shape.

    ``sample``: a few matrices of that shape; ``model_bytes``: what a step reads in all. As much is
    read before each timing: in a step, a matrix lies where the rest of the model has left it. Kinds
    that the dtype or device refuses are left out.
    """
    between_bytes = min(model_bytes, FLUSHED_BYTES)
    between = torch.ones(between_bytes // 4 + 1, device=sample[0][0].device)
    seconds = {kind: _seconds(kind, sample, between.sum) for kind in KINDS}
    return min(seconds, key=lambda kind: seconds[kind])


def _seconds(
    kind: str, sample: Sequence[tuple[Weight, Bias]], flush: Callable[[], Tensor]
) -> float:
    """Product over ``TIMED_ROWS`` of the least seconds; infinite where the kind does not run."""
    weight = sample[0][0]
    if not runs(kind, weight.dtype, str(weight.device)):
        return float("inf")
    matrices = [KINDS[kind](w, b) for w, b in sample]
    product = 1.0
    for rows in TIMED_ROWS:
        x = weight.new_ones(rows, weight.shape[1])
        product *= _least_seconds(matrices, x, flush)
    return product


def _least_seconds(
    matrices: Sequence[Matrix], x: Float[Tensor, "N in"], flush: Callable[[], Tensor]
) -> float:
    """Of several tries: whatever else the machine does only adds to them."""
    times = []
    for _ in range(TIMED_REPEATS):
        flush().item()
        start = time.perf_counter()
        for matrix in matrices:
            y = matrix(x)
        if y.device.type == "cuda":
            torch.cuda.synchronize(y.device)
        times.append(time.perf_counter() - start)
    return min(times)
