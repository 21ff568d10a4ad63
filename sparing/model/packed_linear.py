"""AWQ and GPTQ matrices in GGUF blocks. The codes stay as they are.

    weight[n, k] = scale[g, n] * (code[n, k] - zero[g, n]),   g: the group of column k

    tensor   AWQ             GPTQ
    qweight  int32 [K, N/8]  int32 [K/8, N]   codes, eight to a number
    qzeros   int32 [G, N/8]  int32 [G, N/8]   zeros, likewise; ``Quantization.offset`` is added
    scales   [G, N]          [G, N]
    g_idx                    int32 [K]        the group of each column

A number holds its codes from the low bits up: in GPTQ in order, in AWQ those of outputs
0, 2, 4, 6, 1, 3, 5, 7. The columns of a block belong to one group, so a block is

    Q4_0 (d = scale) if all zeros of the matrix are 8, else Q4_1 (d = scale, m = -scale * zero)

with d and m in float16: scales in float16 are exact, m is off by less than 1 % of a scale. In
act-order the columns of a group lie apart. Such a matrix is rounded once more, to Q8_0.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int, Int32, UInt8
from torch import Tensor

from sparing.errors import ModelError
from sparing.kernels.block_types import BLOCKS
from sparing.kernels.blocks import encode
from sparing.model.quantization import BLOCK, Quantization

PARTS = ("qweight", "qzeros", "scales", "g_idx")
AWQ_PLACES = [0, 4, 1, 5, 2, 6, 3, 7]  # of outputs 0 to 7 in a number
ROWS = 256  # packed at once, to limit temporary memory; a multiple of 8
MIDDLE = 8  # the zero of Q4_0
MOST = 4000.0  # scale; 16 times it is still in the range of float16


@dataclass(frozen=True)
class PackedLinear:
    """A packed matrix ``[rows, columns]``; ``read`` gives a tensor of ``PARTS``, or None."""

    name: str
    quantization: Quantization
    rows: int
    columns: int
    read: Callable[[str], Tensor | None]

    def type(self) -> str:
        """The block type that holds it; raises ModelError for groups that do not exist."""
        if self._block_groups() is None:
            return "Q8_0"
        return "Q4_0" if bool((self._zeros() == MIDDLE).all()) else "Q4_1"

    def blocks(self, type: str) -> np.ndarray:
        """The blocks of ``type``, uint8, row after row; raises ModelError for invalid scales."""
        qweight, scales, zeros = self._part("qweight"), self._scales(), self._zeros()
        found = np.empty((self.rows, BLOCKS[type].row_bytes(self.columns)), np.uint8)
        groups = self._block_groups() if type != "Q8_0" else self._column_groups()
        assert groups is not None
        for begin in range(0, self.rows, ROWS):
            rows = slice(begin, min(begin + ROWS, self.rows))
            codes = self._codes(qweight, rows)
            scale, zero = scales[:, rows].t()[:, groups], zeros[:, rows].t()[:, groups]
            if type == "Q8_0":
                found[rows] = encode(type, scale * (codes.float() - zero)).numpy()
            else:
                found[rows] = four_bits(type, codes, scale, zero)
        return found.reshape(-1)

    def _codes(self, qweight: Int32[Tensor, "A B"], rows: slice) -> UInt8[Tensor, "N K"]:
        if self.quantization.method == "gptq":
            return nibbles(qweight[:, rows].t())
        return in_awq_order(qweight[:, rows.start // 8 : -(-rows.stop // 8)]).t().contiguous()

    def _zeros(self) -> UInt8[Tensor, "G N"]:
        packed = self._part("qzeros")
        awq = self.quantization.method == "awq"
        return (in_awq_order(packed) if awq else nibbles(packed)) + self.quantization.offset

    def _scales(self) -> Float32[Tensor, "G N"]:
        scales = self._part("scales").float()
        if not bool((scales.abs() <= MOST).all()):
            raise ModelError(
                f"{self.name}.scales must be numbers up to {MOST:g}, got "
                f"{scales.abs().max():g}; fetch the checkpoint again"
            )
        return scales

    def _column_groups(self) -> Int[Tensor, " K"]:
        """The group of each column."""
        given = self.read("g_idx") if self.quantization.method == "gptq" else None
        if given is None or not given.any():
            return torch.arange(self.columns) // (self.quantization.group or self.columns)
        groups = self.quantization.groups(self.columns)
        if not 0 <= int(given.min()) <= int(given.max()) < groups:
            raise ModelError(
                f"{self.name}.g_idx must name groups from 0 to {groups - 1}, got "
                f"{int(given.min())} to {int(given.max())}; fetch the checkpoint again"
            )
        return given.long()

    def _block_groups(self) -> Int[Tensor, " blocks"] | None:
        """The group of each block; None if a block has columns of several groups."""
        blocks = self._column_groups().unflatten(0, (-1, BLOCK))
        return blocks[:, 0] if bool((blocks == blocks[:, :1]).all()) else None

    def _part(self, name: str) -> Tensor:
        found = self.read(name)
        assert found is not None, name
        return found


def nibbles(packed: Int32[Tensor, "R C"]) -> UInt8[Tensor, "R 8*C"]:
    """The eight codes of each number, from the low bits up."""
    bytes_ = packed.contiguous().view(torch.uint8)
    return torch.stack((bytes_ & 15, bytes_ >> 4), -1).flatten(1)


def in_awq_order(packed: Int32[Tensor, "R C"]) -> UInt8[Tensor, "R 8*C"]:
    return nibbles(packed).unflatten(1, (-1, 8))[..., AWQ_PLACES].flatten(1)


def four_bits(
    type: str,
    codes: UInt8[Tensor, "N K"],
    scale: Float32[Tensor, "N blocks"],
    zero: UInt8[Tensor, "N blocks"],
) -> UInt8[np.ndarray, "N bytes"]:
    """Blocks of Q4_0 or Q4_1; the first 16 codes of a block lie in the low bits of its bytes."""
    blocks = np.empty(scale.shape, BLOCKS[type].layout)
    first, second = codes.unflatten(1, (-1, 2, BLOCK // 2)).unbind(2)
    blocks["d"], blocks["low"] = scale.half(), first | second << 4
    if type == "Q4_1":
        blocks["m"] = (-scale * zero).half()
    return blocks.view(np.uint8)


def packed_shapes(
    quantization: Quantization, rows: int, columns: int
) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors of a matrix; ``g_idx`` may be missing."""
    groups = quantization.groups(columns)
    shapes: dict[str, tuple[int, ...]] = {
        "qweight": (columns, rows // 8),
        "qzeros": (groups, rows // 8),
        "scales": (groups, rows),
    }
    if quantization.method == "gptq":
        shapes |= {"qweight": (columns // 8, rows), "g_idx": (columns,)}
    return shapes
