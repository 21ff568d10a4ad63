"""The supported block types of GGUF files: the layout of a matrix in the file.

A row of a matrix is a row of blocks; a block holds 1, 32 or 256 weights. `blocks` gives the meaning
of its fields.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BlockType:
    """A type's layout.

    name: in GGUF files
    ggml_id: its number in GGUF files
    weights: number of weights in a block
    layout: the fields of a block, in order, without gaps
    """

    name: str
    ggml_id: int
    weights: int
    layout: np.dtype

    @property
    def bytes(self) -> int:
        """Bytes of a block."""
        return self.layout.itemsize

    def row_bytes(self, columns: int) -> int:
        """Bytes of a row; raises ValueError if the row ends inside a block."""
        if columns % self.weights:
            raise ValueError(
                f"columns must be a multiple of {self.weights} in {self.name}, got {columns}; "
                "keep this matrix at another precision"
            )
        return columns // self.weights * self.bytes


def _layout(*fields: tuple) -> np.dtype:
    return np.dtype(list(fields))


_D, _M, _DMIN = ("d", "<f2"), ("m", "<f2"), ("dmin", "<f2")
BLOCKS = {
    block.name: block
    for block in (
        BlockType("F32", 0, 1, _layout(("x", "<f4"))),
        BlockType("F16", 1, 1, _layout(("x", "<f2"))),
        BlockType("BF16", 30, 1, _layout(("x", "<i2"))),
        BlockType("Q4_0", 2, 32, _layout(_D, ("low", "u1", 16))),
        BlockType("Q4_1", 3, 32, _layout(_D, _M, ("low", "u1", 16))),
        BlockType("Q5_0", 6, 32, _layout(_D, ("high", "u1", 4), ("low", "u1", 16))),
        BlockType("Q5_1", 7, 32, _layout(_D, _M, ("high", "u1", 4), ("low", "u1", 16))),
        BlockType("Q8_0", 8, 32, _layout(_D, ("codes", "u1", 32))),
        BlockType("Q4_K", 12, 256, _layout(_D, _DMIN, ("six", "u1", (3, 4)), ("low", "u1", 128))),
        BlockType(
            "Q5_K",
            13,
            256,
            _layout(_D, _DMIN, ("six", "u1", (3, 4)), ("high", "u1", 32), ("low", "u1", 128)),
        ),
        BlockType(
            "Q6_K",
            14,
            256,
            _layout(("low", "u1", 128), ("high", "u1", 64), ("sc", "i1", 16), _D),
        ),
    )
}
