"""A GGUF model mapped into memory, from one file or several: metadata and tensors.

Nothing is copied or unpacked. A tensor is a read-only view of its blocks in the file.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from mmap import ACCESS_READ, MADV_DONTNEED, PAGESIZE, mmap
from pathlib import Path
from typing import Any

import numpy as np

from sparing.errors import ModelError
from sparing.kernels.block_types import BLOCKS
from sparing.model.gguf_files import split_paths
from sparing.model.gguf_header import Header, TensorLine, read_header

ALIGNMENT = 32


TYPES = {block.ggml_id: block for block in BLOCKS.values()}
UNREAD = {9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K"} | {
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
    40: "NVFP4",
}


@dataclass(frozen=True)
class GgufTensor:
    """A tensor in the file."""

    name: str
    type: str
    shape: tuple[int, ...]  # rows before columns, as in torch
    data: np.ndarray  # uint8, the blocks, row after row


class Gguf:
    """An open model; a context manager.

    ``metadata``: by key
    ``tensors``: by name; views of them stay readable after ``close``
    ``paths``: of its files
    """

    def __init__(self, parts: list["GgufPart"]) -> None:
        self.parts, self.paths = parts, [part.path for part in parts]
        self.metadata: dict[str, Any] = parts[0].header.metadata
        self.tensors: dict[str, GgufTensor] = {}
        self._places: dict[str, tuple[GgufPart, int]] = {}
        for part in parts:
            for tensor, begin in part.tensors():
                if tensor.name in self.tensors:
                    raise part.error(f"tensor {tensor.name} must occur once in the model, got two")
                self.tensors[tensor.name] = tensor
                self._places[tensor.name] = part, begin

    @classmethod
    def open(cls, path: str | Path) -> "Gguf":
        """Open a model by any of its files; raises ModelError if a file cannot be used."""
        path = Path(path)
        first = GgufPart(path)
        count = first.header.metadata.get("split.count", 1)
        if not isinstance(count, int) or count <= 1:
            return cls([first])
        paths = split_paths(path)
        if count != len(paths):
            raise ModelError(
                f"{path}: a part of a split model must be called NAME-00001-of-{count:05}.gguf, "
                "its original name; rename it"
            )
        if missing := next((p for p in paths if not p.is_file()), None):
            raise ModelError(
                f"a split model must have all its {count} files, got no {missing}; fetch it"
            )
        return cls([GgufPart(p) for p in paths])

    @property
    def path(self) -> Path:
        return self.paths[0]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(len(part.data) for part in self.parts)

    def release(self, tensor: GgufTensor, size: int | None = None) -> None:
        """Give back the memory of a tensor's pages, or of its first ``size`` bytes.

        Pages shared with its neighbours are given back too. The next read loads a page again.
        """
        part, begin = self._places[tensor.name]
        start = begin - begin % PAGESIZE
        size = tensor.data.nbytes if size is None else size
        part.data.madvise(MADV_DONTNEED, start, begin + size - start)

    def close(self) -> None:
        self.tensors.clear()
        self._places.clear()
        for part in self.parts:
            part.close()

    def __enter__(self) -> "Gguf":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class GgufPart:
    """One file: its header, and the offset of its weights."""

    def __init__(self, path: Path) -> None:
        self.path, self.data = path, mapped(path)
        self.header: Header = read_header(self.data, path)
        step = self.header.metadata.get("general.alignment", ALIGNMENT)
        if not isinstance(step, int) or step < 1 or step & (step - 1):
            raise self.error(f"general.alignment must be a power of two, got {step!r}")
        self.alignment = step
        self.begin = -(-self.header.size // step) * step

    def error(self, what: str) -> ModelError:
        return ModelError(f"{self.path}: {what}; fetch the file again")

    def tensors(self) -> Iterator[tuple[GgufTensor, int]]:
        """Each tensor and its offset in the file, in ascending order."""
        end, before = 0, ""
        for line in sorted(self.header.tensors, key=lambda line: line.offset):
            size = self._size(line)
            if line.offset < end:
                raise self.error(f"tensors must not overlap, got {before} and {line.name}")
            if line.offset % self.alignment:
                raise self.error(
                    f"tensor {line.name} must begin at a multiple of {self.alignment}, "
                    f"got {line.offset}"
                )
            if self.begin + line.offset + size > len(self.data):
                raise self.error(
                    f"tensor {line.name} must lie within the file, got one that ends "
                    f"{self.begin + line.offset + size - len(self.data):,} bytes behind it"
                )
            end, before = line.offset + size, line.name
            yield self._tensor(line, size), self.begin + line.offset

    def _size(self, line: TensorLine) -> int:
        """Bytes of a tensor; raises ModelError for an unsupported type or an invalid width."""
        kind = TYPES.get(line.type_id)
        if kind is None:
            name = UNREAD.get(line.type_id, f"number {line.type_id}")
            raise ModelError(
                f"{self.path}: a tensor's type must be one of {', '.join(BLOCKS)}, got {name} "
                f"for {line.name}; take a file of another type"
            )
        if line.shape[-1] % kind.weights:
            raise self.error(
                f"the rows of {line.name} must be multiples of {kind.weights} for {kind.name}, "
                f"got {line.shape[-1]}"
            )
        return prod(line.shape) // kind.weights * kind.bytes

    def _tensor(self, line: TensorLine, size: int) -> GgufTensor:
        data = np.frombuffer(self.data, np.uint8, size, self.begin + line.offset)
        return GgufTensor(line.name, TYPES[line.type_id].name, line.shape, data)

    def close(self) -> None:
        with suppress(BufferError):  # views are still in use; the end of the last one closes it
            self.data.close()


def mapped(path: Path) -> mmap:
    """Map a file into memory, read-only."""
    try:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise ModelError(f"{path}: a GGUF file must not be empty; fetch the file again")
            return mmap(file.fileno(), 0, access=ACCESS_READ)
    except OSError as error:
        raise ModelError(
            f"{path} must be a readable file, got: {error.strerror or error}; check it"
        ) from None
