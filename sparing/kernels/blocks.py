"""Decode and encode GGUF blocks: weights as codes with scales and shifts.

A row of a matrix is a row of blocks; a block is some float16 numbers and the small integers of 32
or 256 weights. Every packed type has the form ``weight = scale * code - shift``, with one scale and
one shift for each group of 32 weights (16 in Q6_K):

    type  bits  scale    shift
    Q4_0  4     d        8 d
    Q4_1  4     d        -m
    Q5_0  5     d        16 d
    Q5_1  5     d        -m
    Q8_0  8     d        128 d          the code is the signed byte + 128
    Q4_K  4     d sc     dmin mn        256 weights a block, sc and mn of 6 bits a group
    Q5_K  5     d sc     dmin mn
    Q6_K  6     d sc     32 d sc        sc of 8 bits a group of 16

A float16 number times such an integer is exact in float32, so the weights equal ggml's bit for bit.
A run of bytes of nibbles holds the first half of its codes in the low four bits, the second half in
the high four. Bytes are read in numpy because torch does not take a read-only map of a file.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, UInt8
from torch import Tensor

from sparing.kernels.block_types import BLOCKS

Bytes = UInt8[np.ndarray, "N bytes"] | UInt8[Tensor, "N bytes"]
ENCODED_ROWS = 4096  # rows encoded at once, to limit temporary memory


@dataclass(frozen=True)
class Codes:
    """A packed matrix, one byte a weight: ``weight = scale * code - shift``."""

    codes: UInt8[Tensor, "N K"]
    scale: Float32[Tensor, "N G"]
    shift: Float32[Tensor, "N G"]

    def __post_init__(self) -> None:
        assert self.scale.shape == self.shift.shape
        assert self.codes.shape == (self.scale.shape[0], self.scale.shape[1] * self.group)
        assert self.group in (16, 32)

    @property
    def group(self) -> int:
        """Number of weights with one scale and one shift."""
        return self.codes.shape[1] // self.scale.shape[1]

    @property
    def nbytes(self) -> int:
        parts = (self.codes, self.scale, self.shift)
        return sum(part.untyped_storage().nbytes() for part in parts)

    def rows(self, ids: Int[Tensor, " R"]) -> "Codes":
        """The codes of the rows ``ids``."""
        return Codes(self.codes[ids], self.scale[ids], self.shift[ids])


def decode(name: str, raw: Bytes, columns: int) -> Codes:
    """Decode the rows of a packed type."""
    codes, scale, shift = _DECODERS[name](_blocks(name, raw, columns))
    rows = len(raw)
    return Codes(
        torch.from_numpy(codes.reshape(rows, columns)),
        torch.from_numpy(scale.reshape(rows, -1)),
        torch.from_numpy(shift.reshape(rows, -1)),
    )


def weights(codes: Codes) -> Float32[Tensor, "N K"]:
    """``scale * code - shift``."""
    grouped = codes.codes.unflatten(1, (-1, codes.group)).float()
    return grouped.mul_(codes.scale[..., None]).sub_(codes.shift[..., None]).flatten(1)


def floats(name: str, raw: Bytes, columns: int) -> Float[Tensor, "N K"]:
    """A copy of the rows of F32, F16 or BF16, in that dtype."""
    values = torch.from_numpy(_blocks(name, raw, columns)["x"].copy())
    return values.view(torch.bfloat16) if name == "BF16" else values


def encode(name: str, weight: Float32[Tensor, "N K"]) -> UInt8[Tensor, "N bytes"]:
    """Quantize rows to a type, rounded as in ggml's reference.

    Raises ValueError for a K type, a row that ends inside a block, or a scale beyond float16.
    """
    if name not in _ENCODERS:
        raise ValueError(f"type must be one of {', '.join(_ENCODERS)} for encode, got {name}")
    BLOCKS[name].row_bytes(weight.shape[1])
    return torch.cat([_encoded(name, rows) for rows in weight.split(ENCODED_ROWS)])


# Decoding: a type's blocks [N, blocks] to codes, scales and shifts, each [N, blocks, ...].


def _blocks(name: str, raw: Bytes, columns: int) -> np.ndarray:
    block = BLOCKS[name]
    assert raw.shape[1] == block.row_bytes(columns)
    return np.ascontiguousarray(raw).view(block.layout)


def _float(field: np.ndarray) -> np.ndarray:
    return field.astype(np.float32)


def _nibbles(low: np.ndarray) -> np.ndarray:
    return np.concatenate((low & 15, low >> 4), axis=-1)


def _q4_0(blocks: np.ndarray) -> tuple[np.ndarray, ...]:
    d = _float(blocks["d"])
    return _nibbles(blocks["low"]), d, 8 * d


def _q4_1(blocks: np.ndarray) -> tuple[np.ndarray, ...]:
    return _nibbles(blocks["low"]), _float(blocks["d"]), -_float(blocks["m"])


def _fifth_bits(blocks: np.ndarray) -> np.ndarray:
    """Bit i belongs to weight i."""
    return np.unpackbits(blocks["high"], axis=-1, bitorder="little") << 4


def _q5_0(blocks: np.ndarray) -> tuple[np.ndarray, ...]:
    codes, d, _ = _q4_0(blocks)
    return codes | _fifth_bits(blocks), d, 16 * d


def _q5_1(blocks: np.ndarray) -> tuple[np.ndarray, ...]:
    codes, d, shift = _q4_1(blocks)
    return codes | _fifth_bits(blocks), d, shift


def _q8_0(blocks: np.ndarray) -> tuple[np.ndarray, ...]:
    d = _float(blocks["d"])
    return blocks["codes"] ^ 128, d, 128 * d


def _q4_k(blocks: np.ndarray) -> tuple[np.ndarray, ...]:
    """Unpack the 6-bit scales: the last four have their top bits in the bytes of the first four."""
    sc, mn, both = (blocks["six"][..., part, :] for part in range(3))
    scales = np.concatenate((sc & 63, both & 15 | sc >> 6 << 4), axis=-1)
    minima = np.concatenate((mn & 63, both >> 4 | mn >> 6 << 4), axis=-1)
    return (
        _nibbles(blocks["low"].reshape(*blocks.shape, 4, 32)).reshape(*blocks.shape, 256),
        _float(blocks["d"])[..., None] * scales,
        _float(blocks["dmin"])[..., None] * minima,
    )


def _q5_k(blocks: np.ndarray) -> tuple[np.ndarray, ...]:
    """Bit g of byte i belongs to weight 32 g + i."""
    codes, scale, shift = _q4_k(blocks)
    high = np.unpackbits(blocks["high"][..., None, :], axis=-2, bitorder="little")
    return codes | high.reshape(codes.shape) << 4, scale, shift


_PAIRS = np.array([[0], [2], [4], [6]], np.uint8)


def _q6_k(blocks: np.ndarray) -> tuple[np.ndarray, ...]:
    """Two halves of 128 weights; bits 2 g and 2 g + 1 of byte i belong to weight 32 g + i."""
    low = _nibbles(blocks["low"].reshape(*blocks.shape, 2, 64))
    high = blocks["high"].reshape(*blocks.shape, 2, 1, 32) >> _PAIRS & 3
    scale = _float(blocks["d"])[..., None] * blocks["sc"]
    return low | high.reshape(low.shape) << 4, scale, 32 * scale


_DECODERS: dict[str, Callable[[np.ndarray], tuple[np.ndarray, ...]]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}


# Encoding: weights [N, blocks, weights of a block] to the fields of a type's blocks.

Fields = dict[str, Tensor | np.ndarray]


def _encoded(name: str, weight: Float32[Tensor, "N K"]) -> UInt8[Tensor, "N bytes"]:
    block = BLOCKS[name]
    parts = weight.unflatten(1, (weight.shape[1] // block.weights, block.weights))
    packed = np.empty(parts.shape[:2], block.layout)
    fields = _ENCODERS[name](parts)
    for field in block.layout.names or ():
        packed[field] = fields[field]
    return torch.from_numpy(packed.view(np.uint8))


def _half(numbers: Tensor) -> Tensor:
    half = numbers.half().squeeze(-1)
    if not half.isfinite().all():
        raise ValueError(
            "weights must be finite, with scales in the range of float16, "
            f"got a scale of {numbers.abs().max():g}; load it with weights='bfloat16'"
        )
    return half


def _inverse(d: Tensor) -> Tensor:
    """1 / d, or 0 where that is infinite: such a d is 0 in float16, and so are its weights."""
    inverse = 1 / d
    return inverse.where(inverse.isfinite(), 0)


def _packed_bits(codes: UInt8[Tensor, "N blocks 32"]) -> Fields:
    """The fields ``low`` and ``high``; a type of four bits leaves out ``high``."""
    fifth = np.packbits(codes.numpy() >> 4, axis=-1, bitorder="little")
    first, second = (codes & 15).chunk(2, dim=-1)
    return {"low": first | second << 4, "high": fifth}


def _centred(parts: Tensor, bits: int) -> Fields:
    """Q4_0 and Q5_0: the weight furthest from 0 gets code 0, and 0 the middle code."""
    middle = 1 << bits - 1
    furthest = parts.gather(-1, parts.abs().argmax(-1, keepdim=True))
    d = furthest / -middle
    codes = (parts * _inverse(d) + (middle + 0.5)).clamp(max=2 * middle - 1).byte()
    return {"d": _half(d), **_packed_bits(codes)}


def _ranged(parts: Tensor, bits: int) -> Fields:
    """Q4_1 and Q5_1: the codes run from the least weight to the greatest."""
    last = (1 << bits) - 1
    least, greatest = parts.aminmax(dim=-1, keepdim=True)
    d = (greatest - least) / last
    codes = ((parts - least) * _inverse(d) + 0.5).clamp(max=last).byte()
    return {"d": _half(d), "m": _half(least), **_packed_bits(codes)}


def _signed(parts: Tensor) -> Fields:
    """Q8_0: codes -127 to 127; halves are rounded away from 0."""
    d = parts.abs().amax(-1, keepdim=True) / 127
    steps = parts * _inverse(d)
    whole = steps.trunc()
    codes = whole + (2 * (steps - whole)).trunc()
    return {"d": _half(d), "codes": codes.to(torch.int8).view(torch.uint8)}


_ENCODERS: dict[str, Callable[[Tensor], Fields]] = {
    "F32": lambda parts: {"x": parts.squeeze(-1)},
    "F16": lambda parts: {"x": _half(parts)},
    "BF16": lambda parts: {"x": parts.squeeze(-1).bfloat16().view(torch.int16)},
    "Q4_0": lambda parts: _centred(parts, 4),
    "Q4_1": lambda parts: _ranged(parts, 4),
    "Q5_0": lambda parts: _centred(parts, 5),
    "Q5_1": lambda parts: _ranged(parts, 5),
    "Q8_0": _signed,
}
