"""The product of packed weights in torch: the oracle of the C++ kernel, and the way without it.

The weights of N outputs are codes with scales and shifts (`blocks`); the activations x ``[M, K]``
are rounded to int8 in runs as long as a block of the weights (32 or 256 columns), row by row:

    amax = max |x|,  d = amax * (1 / 127),  a = round(x * (127 / amax)),  ties to even
    y[m, n] = sum_b d[m, b] * t[m, n, b] + bias[n]
    t[m, n, b] = sum_g scale[n, g] * dot(code[n, g], a[m, g]) - shift[n, g] * sum(a[m, g])

b counts runs, g the groups of weights inside one: of 32, of 16 in Q6_K. Both sums ascend, from the
left. ``d``, ``1 / 127``, ``127 / amax`` and their products are float32; ``127 / amax`` counts as 0
where it is infinite, as where amax is 0. So |a| is at most 127.

Dots and sums of ``a`` are integers, at most 32 * 255 * 127, and exact in any order. The rest is
float32, each operation rounded by itself, in an order that no row changes: a row gets the same bits
in any company.
"""

from typing import Any

import torch
from jaxtyping import Float32, Int, Int8
from torch import Tensor

from sparing.kernels.block_types import BLOCKS
from sparing.kernels.blocks import Codes, weights


class PackedMatrix:
    """A packed weight that multiplies rows.

    A weight takes a byte here, and 8 bytes a group: more than in the file, less than in float32.
    """

    def __init__(self, type: str, codes: Codes, bias: Float32[Tensor, " N"] | None = None) -> None:
        assert type in BLOCKS
        self.type, self.codes, self.bias = type, codes, bias

    def __call__(self, x: Float32[Tensor, "M K"]) -> Float32[Tensor, "M N"]:
        y = product(self.codes, *quantize(x, BLOCKS[self.type].weights))
        return y if self.bias is None else y.add_(self.bias)

    def rows(self, ids: Int[Tensor, " R"]) -> Float32[Tensor, "R K"]:
        """Rows of the weight itself; no activation is rounded for them."""
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
    """The activations ``a`` and their scales ``d``, one for each ``run`` of columns."""
    runs = x.unflatten(1, (-1, run))
    amax = runs.abs().amax(-1)
    inverse = 127 / amax
    inverse = inverse.where(inverse.isfinite(), 0)
    a = (runs * inverse[..., None]).round()
    return a.to(torch.int8).flatten(1), amax * torch.tensor(1 / 127, dtype=torch.float32)


def product(
    codes: Codes, a: Int8[Tensor, "M K"], d: Float32[Tensor, "M runs"]
) -> Float32[Tensor, "M N"]:
    """y without bias, from rounded activations; only a group of the weight is ever float."""
    y = d.new_zeros(len(a), len(codes.codes))
    groups = codes.scale.shape[1] // d.shape[1]
    for run in range(d.shape[1]):
        t = _term(codes, a, run * groups)
        for group in range(run * groups + 1, (run + 1) * groups):
            t += _term(codes, a, group)
        y += t.mul_(d[:, run, None])
    return y


def _term(codes: Codes, a: Int8[Tensor, "M K"], group: int) -> Float32[Tensor, "M N"]:
    """``scale * dot - shift * sum`` of one group; the float32 product is of integers, and exact."""
    columns = slice(group * codes.group, (group + 1) * codes.group)
    part = a[:, columns].float()
    dot = part @ codes.codes[:, columns].float().t()
    shifts = part.sum(1, keepdim=True) * codes.shift[:, group]
    return dot.mul_(codes.scale[:, group]).sub_(shifts)
