"""A GGUF file, or all parts of a split one, mapped into memory: metadata, and tensors as they are.

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
    """``shape`` is torch's, rows before columns; ``data`` the blocks, row after row."""

    name: str
    type: str
    shape: tuple[int, ...]
    data: np.ndarray  # uint8 [bytes]


class Gguf:
    """An open model: ``metadata`` by key, ``tensors`` by name; a context manager.

    ``paths``: its files. Views of a tensor stay readable after ``close``.
    """

    def __init__(self, parts: list["GgufPart"]) -> None:
        self.parts, self.paths = parts, [part.path for part in parts]
        self.metadata: dict[str, Any] = parts[0].header.metadata
        self.tensors: dict[str, GgufTensor] = {}
        self._places: dict[str, tuple[GgufPart, int]] = {}
        for part in parts:
            for tensor, begin in part.tensors():
                if tensor.name in self.tensors:
                    raise part.error(f"tensor {tensor.name} must stand in the model once, got two")
                self.tensors[tensor.name] = tensor
                self._places[tensor.name] = part, begin

    @classmethod
    def open(cls, path: str | Path) -> "Gguf":
        """Of a split model any part will do; raises ModelError where a file cannot be used."""
        path = Path(path)
        first = GgufPart(path)
        count = first.header.metadata.get("split.count", 1)
        if not isinstance(count, int) or count <= 1:
            return cls([first])
        paths = split_paths(path)
        if count != len(paths):
            raise ModelError(
                f"{path}: a part of a split model must be called NAME-00001-of-{count:05}.gguf, "
                "as the model was split; rename it"
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
        """Of all files."""
        return sum(len(part.data) for part in self.parts)

    def release(self, tensor: GgufTensor, size: int | None = None) -> None:
        """Give back the memory of a tensor's pages, or of its first ``size`` bytes; whoever reads
        them again gets them again.

        A page that it shares with its neighbours is given back too: the file still has it.
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
    """One file: its header, and where its weights begin."""

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
        """Each tensor and where it begins in the file, in the order of their places."""
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
        """Bytes of a tensor; raises ModelError for a type or a width that cannot be."""
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
        with suppress(BufferError):  # a view is still in use: the last one closes it
            self.data.close()


def mapped(path: Path) -> mmap:
    """The file's bytes, read where they are touched."""
    try:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise ModelError(f"{path}: a GGUF file must not be empty; fetch the file again")
            return mmap(file.fileno(), 0, access=ACCESS_READ)
    except OSError as error:
        raise ModelError(
            f"{path} must be a file that can be read, got: {error.strerror or error}; check it"
        ) from None
