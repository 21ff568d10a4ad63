"""The bytes of a token, by its id: what it adds to a text, for every kind of tokenizer."""

import codecs
import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

ANCHOR = "a"  # stands beside a token, so that it is decoded as in the middle of a text
BYTE_LEVEL, BYTE_FALLBACK = "ByteLevel", "ByteFallback"  # the decoders that yield single bytes


class TokenBytes:
    """A map from ids to bytes, computed once an id.

    The bytes are those within a text: the space of SentencePiece's "▁word" is one of them. Special
    tokens have the bytes of their own text, ids without a token have none.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._added: Mapping[int, Any] = self._backend.get_added_tokens_decoder()
        self._decoder = self._backend.decoder
        self._steps = set() if self._decoder is None else steps(self._decoder)
        self._known: dict[int, bytes] = {}

    def __getitem__(self, id_: int) -> bytes:
        if id_ not in self._known:
            self._known[id_] = self._bytes(id_)
        return self._known[id_]

    def is_special(self, id_: int) -> bool:
        """Whether decoded text leaves the token out."""
        return id_ in self._added and bool(self._added[id_].special)

    def begins(self, id_: int) -> bytes:
        """The bytes of a token at the beginning of a text, where some decoders drop a space."""
        token, inside = self._backend.id_to_token(id_), self[id_]
        if not inside.startswith(b" ") or self._steps & {BYTE_LEVEL}:
            return inside
        first = self._decoded([token, ANCHOR]).removesuffix(self._beside).encode()
        return first if inside == b" " + first else inside

    def text(self, ids: Iterable[int]) -> list[bytes]:
        """The bytes of each token of a text, which they give together; special ones have none."""
        found: list[bytes] = []
        begun = False
        for id_ in ids:
            silent = self.is_special(id_)
            found.append(b"" if silent else self[id_] if begun else self.begins(id_))
            begun |= not silent
        return found

    def _bytes(self, id_: int) -> bytes:
        token = self._backend.id_to_token(id_)
        if token is None:
            return b""
        if self.is_special(id_) or (BYTE_LEVEL in self._steps and id_ in self._added):
            return str(token).encode()
        if BYTE_LEVEL in self._steps:
            return from_alphabet(token)
        if BYTE_FALLBACK in self._steps and (byte := fallback_byte(token)) is not None:
            return bytes([byte])
        before, after = self._decoded([ANCHOR]), self._beside
        whole = self._decoded([ANCHOR, token, ANCHOR])
        if whole.startswith(before) and whole.endswith(after) and len(whole) >= len(before + after):
            return whole[len(before) : len(whole) - len(after)].encode()
        return token.encode()

    @property
    def _beside(self) -> str:
        """What an anchor adds behind another token."""
        return self._decoded([ANCHOR, ANCHOR]).removeprefix(self._decoded([ANCHOR])) or ANCHOR

    def _decoded(self, tokens: list[str]) -> str:
        return " ".join(tokens) if self._decoder is None else str(self._decoder.decode(tokens))


def steps(decoder: Any) -> set[str]:
    """The names of a decoder's steps, from its JSON."""
    state = json.loads(decoder.__getstate__())
    parts = state["decoders"] if state["type"] == "Sequence" else [state]
    return {part["type"] for part in parts}


def from_alphabet(token: str) -> bytes:
    """The bytes of a token in the alphabet of byte-level BPE; a token outside of it is text."""
    try:
        return bytes(map(alphabet().__getitem__, token))
    except KeyError:
        return token.encode()


@cache
def alphabet() -> dict[str, int]:
    """Bytes by their character: printable ones stand for themselves, others follow from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    found = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if chr(byte) not in found)
    return found | {chr(0x100 + at): byte for at, byte in enumerate(others)}


def fallback_byte(token: str) -> int | None:
    """The byte of ``<0xE2>``; None for any other token."""
    if len(token) != 6 or not (token.startswith("<0x") and token.endswith(">")):
        return None
    try:
        return int(token[3:5], 16)
    except ValueError:
        return None


class Offsets:
    """Counts characters: where each token of a text begins.

    A token that is a part of a character begins where the character does.
    """

    def __init__(self) -> None:
        self.at = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, part: bytes, released: int) -> int:
        """The offset of a token of these bytes; ``released``: characters of the text before it.

        The text has a mark for each broken byte where this count may have one for several.
        """
        self.at = begin = max(self.at, released)
        self.at += len(self._decoder.decode(part))
        return begin


def matched(part: bytes, rest: bytes, *, over: bool) -> tuple[bytes, int] | None:
    """The bytes of a token that ``rest`` begins with, and how many bytes of ``rest`` they are.

    ``rest`` is the unsent end of a text that has no white space at its own ends. A token that is
    not in it gives (b"", 0); None: undecided until the text goes on (``over``: it does not).
    """
    for form in (part, part.decode(errors="replace").encode()):  # broken bytes as the text has them
        taken, left = common(form, rest)
        if left and len(taken) == len(rest) and not over:
            return None
        if taken and not left.strip():
            return (part if form != part else taken), len(taken)
        if taken and len(taken) == len(rest):
            return taken, len(taken)
    return b"", 0


def common(part: bytes, rest: bytes) -> tuple[bytes, bytes]:
    """The common beginning, without regard to white space in ``part``, and the rest of ``part``."""
    taken = bytearray()
    for at, byte in enumerate(part):
        blank = not part[at : at + 1].strip()
        if rest[len(taken) :].startswith(b"\n") and not blank:
            taken += b"\n"  # between two answers
        if len(taken) == len(rest):
            return bytes(taken), part[at:]
        if byte == rest[len(taken)]:
            taken.append(byte)
        elif not blank:
            return bytes(taken), part[at:]
    return bytes(taken), b""
