"""Decode tokens one by one. Released text never changes."""

from collections.abc import Sequence
from typing import Any

BROKEN = "\ufffd"  # in place of bytes that form no character, or none yet
LONGEST = 4  # bytes of a character


class Detokenizer:
    """Decodes each token after the tokens before it, and holds back incomplete characters.

    Some tokenizers decode a run of bytes as a whole: one stray byte makes the bytes before it
    unreadable. Released text stays even then, and later tokens are decoded after a plain letter.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._plain = self._backend.encode("a", add_special_tokens=False).ids[-1:]
        self._context: list[int] = []  # released last; the text of the next token may depend on it
        self._held: list[int] = []
        self._silent: dict[int, bool] = {}

    def push(self, token: int) -> str:
        """The text released by this token."""
        if self._says_nothing(token):
            return ""
        self._held.append(token)
        piece = ""
        while self._held:
            text = self._read(self._held)
            ready = self._broken_off() if text.endswith(BROKEN) else len(self._held)
            if not ready:
                break
            piece += self._tell(ready)
        return piece

    def finish(self) -> str:
        """The text of the tokens held back."""
        return self._tell(len(self._held))

    def _says_nothing(self, token: int) -> bool:
        """Whether a token has no text: special tokens, and ids without a token."""
        if token not in self._silent:
            self._silent[token] = self._decode([*self._plain, token]) == self._decode(self._plain)
        return self._silent[token]

    def _broken_off(self) -> int:
        """Number of first held tokens that no later token can complete; 0: perhaps none."""
        if len(self._held) < LONGEST:
            return 0
        count = min(range(1, len(self._held)), key=lambda n: self._lost(self._held, n))
        return count if self._lost(self._held, count) <= self._lost(self._held) else 0

    def _lost(self, tokens: Sequence[int], at: int = 0) -> int:
        """Number of broken characters if the first ``at`` tokens are decoded apart."""
        return self._in_two(tokens, at).count(BROKEN)

    def _in_two(self, tokens: Sequence[int], at: int) -> str:
        return self._behind(self._plain, tokens[:at]) + self._behind(self._plain, tokens[at:])

    def _tell(self, count: int) -> str:
        told, self._held = self._held[:count], self._held[count:]
        piece = self._read(told)
        self._context = list(self._plain) if BROKEN in piece else told
        return piece

    def _read(self, tokens: Sequence[int]) -> str:
        """The text of tokens after the context, or after a letter if they change its text."""
        known = self._decode(self._context)
        text = self._decode([*self._context, *tokens])
        if text.startswith(known) and BROKEN not in text:
            return text[len(known) :]
        at = min(range(max(len(tokens), 1)), key=lambda n: self._lost(tokens, n))
        return self._in_two(tokens, at)

    def _behind(self, context: Sequence[int], tokens: Sequence[int]) -> str:
        return self._decode([*context, *tokens])[len(self._decode(context)) :]

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._backend.decode(list(tokens), skip_special_tokens=True)
        return text
