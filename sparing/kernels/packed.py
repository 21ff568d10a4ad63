"""Weights in the layout of the kernels: packed once at load, multiplied by compiled code."""

import ctypes
import mmap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparing.kernels.native import FORMATS, Library, MatrixStruct

ALIGNMENT = 64
PANEL_ROWS = 16  # a multiple of the rows of a panel in every format
SLICE_BYTES = 1 << 20  # times PANEL_ROWS: bytes of a file packed before their pages are released


class Kernels:
    """A library with one pool of threads for all its matrices and passes."""

    def __init__(self, library: Library, threads: int) -> None:
        self.native, self.threads = library, threads
        self.context = library.open(threads)

    def __del__(self) -> None:
        if context := getattr(self, "context", None):
            self.native.close(context)


class Arena:
    """One block of memory for many matrices, in huge pages where the system has them."""

    def __init__(self, size: int) -> None:
        self._memory = mmap.mmap(-1, max(size, 1))
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._memory.madvise(mmap.MADV_HUGEPAGE)
        self._bytes, self._used = np.frombuffer(self._memory, np.uint8), 0

    @staticmethod
    def size(sizes: Sequence[int]) -> int:
        """Bytes of an arena for pieces of these sizes."""
        return sum(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes)

    def take(self, size: int) -> np.ndarray:
        """The next ``size`` bytes, zeroed and aligned."""
        found = self._bytes[self._used : self._used + size]
        assert len(found) == size
        self._used += self.size([size])
        return found


class KernelMatrix:
    """A ``Matrix`` ``[out, in]`` in panels of rows (see src/formats.h)."""

    def __init__(
        self,
        kernels: Kernels,
        type: str,
        rows: int,
        columns: int,
        bias: Float[Tensor, " out"] | None = None,
        arena: Arena | None = None,
    ) -> None:
        """A matrix of zeros, for ``pack`` or ``put`` to fill."""
        self.kernels, self.type, self.bias = kernels, type, bias
        size = packed_bytes(kernels.native, type, rows, columns)
        self.data = (arena or Arena(size)).take(size)
        self.struct = MatrixStruct(
            FORMATS.index(type),
            rows,
            columns,
            0,
            self.data.ctypes.data,
            None if bias is None else bias.data_ptr(),
        )

    def pack(
        self,
        type: str,
        data: np.ndarray,
        row_bytes: int,
        order: np.ndarray | None = None,
        done: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Fill the matrix from a file's rows of the same type, or from floats, which it quantizes.

        Raises ValueError for floats that are no numbers or too large to be quantized.

        ``order``: the file's row of each row, int32; None: the same order
        ``done``: called about every 16 MB (with ``order`` once, at the end) with the number of
            bytes of ``data`` that are no longer needed
        """
        k, s = self.kernels, self.struct
        rows = s.rows if order is not None else max(SLICE_BYTES // row_bytes, 1) * PANEL_ROWS
        for first in range(0, s.rows, rows):
            count = min(rows, s.rows - first)
            packed = k.native.pack(
                k.context,
                FORMATS.index(type),
                s.format,
                count,
                s.columns,
                data.ctypes.data + first * row_bytes,
                row_bytes,
                None if order is None else order.ctypes.data,
                s.data + packed_bytes(k.native, self.type, first, s.columns),
            )
            if not packed:
                raise ValueError(
                    "weights must be finite, with scales in the range of float16; load it with "
                    "weights='bfloat16'"
                )
            done((first + count) * row_bytes)

    def __call__(self, x: Float[Tensor, "N in"]) -> Float[Tensor, "N out"]:
        x = x.contiguous()
        out = x.new_empty(len(x), self.struct.rows)
        k = self.kernels
        k.native.multiply(
            k.context, ctypes.byref(self.struct), x.data_ptr(), len(x), out.data_ptr()
        )
        return out

    def rows(self, ids: Int[Tensor, " K"]) -> Float[Tensor, "K in"]:
        wanted = ids.to(torch.int64).contiguous()
        out = torch.empty(len(wanted), self.struct.columns)
        self.kernels.native.rows(
            ctypes.byref(self.struct), wanted.data_ptr(), len(wanted), out.data_ptr()
        )
        return out

    def take(self, ids: Int[Tensor, " K"]) -> "KernelMatrix":
        bias = None if self.bias is None else self.bias[ids].contiguous()
        found = KernelMatrix(self.kernels, self.type, len(ids), self.struct.columns, bias)
        for place, row in enumerate(ids.tolist()):
            found.put(place, self, row)
        return found

    def put(self, place: int, source: Any, row: int) -> None:
        assert isinstance(source, KernelMatrix)
        assert source.type == self.type
        here, there = self.struct, source.struct
        self.kernels.native.copy_row(here.format, here.columns, there.data, row, here.data, place)

    @property
    def nbytes(self) -> int:
        return self.data.nbytes + (0 if self.bias is None else self.bias.nbytes)


def packed_bytes(library: Library, type: str, rows: int, columns: int) -> int:
    """Bytes of a matrix in the kernels' layout."""
    return int(library.packed_bytes(FORMATS.index(type), rows, columns))
