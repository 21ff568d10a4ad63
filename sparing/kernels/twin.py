"""The product of packed weights in torch: the oracle of the C++ kernel, and its substitute.

The weights of N outputs are codes with scales and shifts (`blocks`). The activations x ``[M, K]``
are rounded to int8, row by row, in runs of a block of the weights (32 or 256 columns):

    amax = max |x|,  d = amax * (1 / 127),  a = round(x * (127 / amax)),  ties to even
    y[m, n] = sum_b d[m, b] * t[m, n, b] + bias[n]
    t[m, n, b] = sum_g scale[n, g] * dot(code[n, g], a[m, g]) - shift[n, g] * sum(a[m, g])

b counts runs, g the groups of weights in a run (32 weights, 16 in Q6_K). Both sums run in ascending
order. ``d``, ``1 / 127``, ``127 / amax`` and their products are float32; an infinite ``127 / amax``
(amax near or equal to 0) counts as 0. So |a| is at most 127.

Dots and sums of ``a`` are integers, at most 32 * 255 * 127, and exact in any order. Every other
operation is float32 with its own rounding, in an order independent of the other rows: a row's
result is bit for bit the same alone and in a batch. The C++ kernel fuses some of these operations,
so its last bits differ.
"""

from typing import Any

import torch
from jaxtyping import Float32, Int, Int8
from torch import Tensor

from sparing.kernels.block_types import BLOCKS
from sparing.kernels.blocks import Codes, weights


class PackedMatrix:
    """A ``Matrix`` of packed weights.

    It takes a byte a weight and 8 bytes a group: more than the file, less than float32.
    """

    def __init__(self, type: str, codes: Codes, bias: Float32[Tensor, " N"] | None = None) -> None:
        assert type in BLOCKS
        self.type, self.codes, self.bias = type, codes, bias

    def __call__(self, x: Float32[Tensor, "M K"]) -> Float32[Tensor, "M N"]:
        y = product(self.codes, *quantize(x, BLOCKS[self.type].weights))
        return y if self.bias is None else y.add_(self.bias)

    def rows(self, ids: Int[Tensor, " R"]) -> Float32[Tensor, "R K"]:
        """The weight's rows as floats, without any rounding of activations."""
        return weights(self.codes.rows(ids))

    def take(self, ids: Int[Tensor, " R"]) -> "PackedMatrix":
        bias = None if self.bias is None else self.bias[ids]
        return PackedMatrix(self.type, self.codes.rows(ids), bias)

    def put(self, place: int, source: Any, row: int) -> None:
        for part in ("codes", "scale", "shift"):
            getattr(self.codes, part)[place] = getattr(source.codes, part)[row]

    @property
    def nbytes(self) -> int:
        bias = 0 if self.bias is None else self.bias.untyped_storage().nbytes()
        return self.codes.nbytes + bias


def quantize(
    x: Float32[Tensor, "M K"], run: int
) -> tuple[Int8[Tensor, "M K"], Float32[Tensor, "M runs"]]:
    """Round activations to ``a``, with a scale ``d`` for each ``run`` of columns."""
    runs = x.unflatten(1, (-1, run))
    amax = runs.abs().amax(-1)
    inverse = 127 / amax
    inverse = inverse.where(inverse.isfinite(), 0)
    a = (runs * inverse[..., None]).round()
    return a.to(torch.int8).flatten(1), amax * torch.tensor(1 / 127, dtype=torch.float32)


def product(
    codes: Codes, a: Int8[Tensor, "M K"], d: Float32[Tensor, "M runs"]
) -> Float32[Tensor, "M N"]:
    """y without bias, from rounded activations; converts one group of weights at a time."""
    y = d.new_zeros(len(a), len(codes.codes))
    groups = codes.scale.shape[1] // d.shape[1]
    for run in range(d.shape[1]):
        t = _term(codes, a, run * groups)
        for group in range(run * groups + 1, (run + 1) * groups):
            t += _term(codes, a, group)
        y += t.mul_(d[:, run, None])
    return y


def _term(codes: Codes, a: Int8[Tensor, "M K"], group: int) -> Float32[Tensor, "M N"]:
    """``scale * dot - shift * sum`` of one group; the dot in float32 is exact: all integers."""
    columns = slice(group * codes.group, (group + 1) * codes.group)
    part = a[:, columns].float()
    dot = part @ codes.codes[:, columns].float().t()
    shifts = part.sum(1, keepdim=True) * codes.shift[:, group]
    return dot.mul_(codes.scale[:, group]).sub_(shifts)
