"""Read the header of a GGUF file: its metadata and its list of tensors.

magic "GGUF" | version u32 | tensors u64 | entries u64
an entry:  key string | value type u32 | value
a tensor:  name string | dimensions u32 | dimensions x u64, the width first | type u32 | offset u64
a string:  length u64 | bytes
an array:  type u32 | length u64 | values

All numbers are little-endian. Every length is compared with the rest of the file before a read.
"""

from dataclasses import dataclass
from mmap import mmap
from struct import Struct
from typing import Any

import numpy as np

from sparing.errors import ModelError

MAGIC, VERSIONS = b"GGUF", (2, 3)
STRING, ARRAY = 8, 9
NUMBERS = {  # value type -> numpy's code, struct's letter
    0: ("u1", "B"),
    1: ("i1", "b"),
    2: ("<u2", "H"),
    3: ("<i2", "h"),
    4: ("<u4", "I"),
    5: ("<i4", "i"),
    6: ("<f4", "f"),
    7: ("?", "?"),
    10: ("<u8", "Q"),
    11: ("<i8", "q"),
    12: ("<f8", "d"),
}
FORMATS = {kind: Struct(f"<{letter}") for kind, (_, letter) in NUMBERS.items()}
SMALLEST_ENTRY, SMALLEST_TENSOR = 8 + 4 + 1, 8 + 4 + 8 + 4 + 8  # bytes
DIMENSIONS, LONGEST_NAME = 4, 128
U32, U64 = Struct("<I"), Struct("<Q")


@dataclass(frozen=True)
class TensorLine:
    """A tensor's entry in the header."""

    name: str
    shape: tuple[int, ...]  # rows before columns, as in torch
    type_id: int
    offset: int  # bytes from the first weight


@dataclass(frozen=True)
class Header:
    """The header of one file."""

    metadata: dict[str, Any]  # strings, numbers, lists of strings and numpy arrays
    tensors: list[TensorLine]
    size: int  # bytes, without the padding behind it


def read_header(data: mmap | bytes, path: object) -> Header:
    """Read a header; ``path`` is only for the messages.

    Raises ModelError unless the data is a whole and consistent GGUF of version 2 or 3.
    """
    reader = Reader(data, path)
    reader.check_magic()
    tensors = reader.count("tensors", SMALLEST_TENSOR)
    entries = reader.count("metadata entries", SMALLEST_ENTRY)
    metadata: dict[str, Any] = {}
    for _ in range(entries):
        key = reader.name()
        if key in metadata:
            raise reader.error(f"a metadata key must occur once, got {key} twice")
        metadata[key] = reader.value(reader.number(U32))
    lines = [reader.tensor() for _ in range(tensors)]
    return Header(metadata, lines, reader.at)


class Reader:
    """A cursor in the file; it only moves forward."""

    def __init__(self, data: mmap | bytes, path: object) -> None:
        self.data, self.path, self.at = data, path, 0

    def error(self, what: str) -> ModelError:
        return ModelError(f"{self.path}: {what}; fetch the file again")

    def check_magic(self) -> None:
        if (magic := self.data[:4]) != MAGIC:
            raise self.error(f"a GGUF file must begin with {MAGIC!r}, got {bytes(magic)!r}")
        self.at = 4
        version = self.number(U32)
        if version and not version & 0xFFFF:
            raise ModelError(
                f"{self.path}: a GGUF file must be little-endian, got a big-endian one; "
                "convert the model again without --bigendian"
            )
        if version not in VERSIONS:
            raise ModelError(
                f"{self.path}: a GGUF file must be of version 2 or 3, got version {version}; "
                "convert the model again with a current llama.cpp"
            )

    def take(self, size: int) -> int:
        """The offset of the next ``size`` bytes; moves behind them."""
        begin, left = self.at, len(self.data) - self.at
        if size > left:
            raise self.error(
                f"a GGUF file must be whole, got one cut short: {size:,} bytes needed at "
                f"{begin:,}, {left:,} left"
            )
        self.at = begin + size
        return begin

    def number(self, form: Struct) -> Any:
        return form.unpack_from(self.data, self.take(form.size))[0]

    def count(self, what: str, smallest: int) -> int:
        """Read a count of items; raises ModelError if the file ends before ``smallest`` bytes
        for each."""
        number, left = self.number(U64), len(self.data) - self.at
        if number * smallest > left:
            raise self.error(f"{number:,} {what} must fit into the file, got {left:,} bytes")
        return number

    def string(self) -> str:
        size = self.number(U64)
        begin = self.take(size)
        return self.data[begin : self.at].decode(errors="replace")

    def name(self) -> str:
        """A string fit for a message: short and printable."""
        name = self.string()
        if len(name) > LONGEST_NAME or not name.isprintable():
            raise self.error(f"a name must be short and printable, got {name[:LONGEST_NAME]!r}")
        return name

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            return self.array()
        if kind not in FORMATS:
            raise self.error(f"a metadata value must be of type 0 to 12, got {kind}")
        return self.number(FORMATS[kind])

    def array(self) -> Any:
        kind = self.number(U32)
        if kind == STRING:
            return self.strings(self.count("strings", 8))
        if kind not in NUMBERS:
            raise self.error(f"an array must hold numbers or strings, got type {kind}")
        dtype = np.dtype(NUMBERS[kind][0])
        count = self.count("numbers", dtype.itemsize)
        begin = self.take(count * dtype.itemsize)
        return np.frombuffer(self.data[begin : self.at], dtype)

    def strings(self, count: int) -> list[str]:
        """As ``string``, inlined for speed: a vocabulary has hundreds of thousands."""
        data, at, end, found = self.data, self.at, len(self.data), list[str]()
        for _ in range(count):
            begin = at + 8
            stop = begin + int.from_bytes(data[at:begin], "little")
            if stop > end:
                self.at = at
                self.string()  # raises
            found.append(data[begin:stop].decode(errors="replace"))
            at = stop
        self.at = at
        return found

    def tensor(self) -> TensorLine:
        name = self.name()
        dimensions = self.number(U32)
        if not 1 <= dimensions <= DIMENSIONS:
            raise self.error(f"tensor {name} must have 1 to 4 dimensions, got {dimensions}")
        sizes = [self.number(U64) for _ in range(dimensions)]
        if 0 in sizes:
            raise self.error(f"tensor {name} must have no empty dimension, got {sizes[::-1]}")
        return TensorLine(name, tuple(sizes[::-1]), self.number(U32), self.number(U64))
