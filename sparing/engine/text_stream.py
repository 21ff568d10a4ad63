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

    @property
    def text(self) -> str:
        return self.decoded[: self.released]

    def push(self, token: int) -> tuple[str, bool]:
        """The text released by this token, and whether a stop string (not released) ended it."""
        piece = self._detokenizer.push(token)
        if not piece:
            return "", False
        self.decoded += piece
        cut = self._stop_at()
        return self._release(self._safe() if cut is None else cut), cut is not None

    def finish(self) -> str:
        """Release the text held back, at the end of the row: incomplete bytes become U+FFFD."""
        self.decoded += self._detokenizer.finish()
        return self._release(len(self.decoded))

    def _release(self, until: int) -> str:
        piece = self.decoded[self.released : until]
        self.released = until
        return piece

    def _stop_at(self) -> int | None:
        """The offset of the first stop string."""
        found = [self.decoded.find(stop, self.released) for stop in self._stops]
        return min((at for at in found if at >= 0), default=None)

    def _safe(self) -> int:
        """The end of the text in which no stop string can have begun."""
        tail = self.decoded[self.released :]
        held = 0
        for stop in self._stops:
            for size in range(min(len(stop) - 1, len(tail)), held, -1):
                if tail.endswith(stop[:size]):
                    held = size
                    break
        return len(self.decoded) - held
