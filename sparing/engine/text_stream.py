"""Text from a stream of tokens. Released text is final: no later token changes or cuts it."""

from typing import Any

from sparing.engine.detokenizer import Detokenizer


class TextStream:
    """Decodes token by token; holds back half a code point and half a stop string.

    ``decoded``: all text so far
    ``text``: the released text
    """

    def __init__(self, tokenizer: Any, stops: list[str]) -> None:
        self._detokenizer, self._stops = Detokenizer(tokenizer), stops
        self.decoded, self.released = "", 0
        self._watched: int | None = 0
        self._skips_newlines = False

    def watch(self, begin: int | None, *, skip_newlines: bool = False) -> None:
        """Say from which character of ``decoded`` stop strings count; None: nowhere.

        ``skip_newlines``: behind the newlines there
        """
        self._watched, self._skips_newlines = begin, skip_newlines

    @property
    def text(self) -> str:
        return self.decoded[: self.released]

    def push(self, token: int) -> str:
        """Add a token; returns the text it decoded."""
        piece = self._detokenizer.push(token)
        self.decoded += piece
        return piece

    def release(self) -> tuple[str, bool]:
        """The text that is final now, and whether a stop string (not released) ended it."""
        cut = self._stop_at()
        return self._release(self._safe() if cut is None else cut), cut is not None

    def flush(self) -> None:
        """Decode what is held back as it is: incomplete bytes become U+FFFD."""
        self.decoded += self._detokenizer.finish()

    def finish(self) -> str:
        """Release all text, at the end of the row."""
        self.flush()
        return self._release(len(self.decoded))

    def _release(self, until: int) -> str:
        piece = self.decoded[self.released : until]
        self.released = until
        return piece

    def _begin(self) -> int | None:
        """Where a stop string may begin."""
        begin = self._watched
        if begin is None:
            return None
        while self._skips_newlines and self.decoded.startswith("\n", begin):
            begin += 1
        return max(self.released, begin)

    def _stop_at(self) -> int | None:
        """The offset of the first stop string."""
        begin = self._begin()
        if begin is None:
            return None
        found = [self.decoded.find(stop, begin) for stop in self._stops]
        return min((at for at in found if at >= 0), default=None)

    def _safe(self) -> int:
        """The end of the text in which no stop string can have begun."""
        begin = self._begin()
        tail = "" if begin is None else self.decoded[begin:]
        held = 0
        for stop in self._stops:
            for size in range(min(len(stop) - 1, len(tail)), held, -1):
                if tail.endswith(stop[:size]):
                    held = size
                    break
        return len(self.decoded) - held
