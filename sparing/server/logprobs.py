"""Log-probabilities of a choice's tokens, in OpenAI's two formats."""

from collections import deque
from collections.abc import Iterator

from sparing.engine.events import TokenEvent
from sparing.model.token_bytes import Offsets, TokenBytes, matched
from sparing.server.responses import ChatLogprobs, TextLogprobs, TokenLogprob, TopLogprob
from sparing.server.runs import Choice


class ChatTokens:
    """The tokens of a choice that have not been sent, and how much of the answer has.

    ``thoughts``: whether the tokens of thoughts are wanted too
    """

    def __init__(self, choice: Choice, tokens: TokenBytes, *, thoughts: bool) -> None:
        self.choice, self.tokens, self.thoughts = choice, tokens, thoughts
        self._seen, self._said = 0, 0  # tokens taken; bytes of the answer with a token
        self._waiting: deque[TokenEvent] = deque()  # perhaps of the answer

    def news(self) -> ChatLogprobs | None:
        """The new tokens; None without any, or unless asked for."""
        if self.choice.request.sampler.logprobs is None:
            return None
        new = self.choice.tokens[self._seen :]
        self._seen += len(new)
        thought = [event for event in new if event.kind == "thought"]
        self._waiting += (event for event in new if event.kind != "thought")
        told = [self._logprob(e, self.tokens[e.id]) for e in thought] if self.thoughts else []
        said = [self._logprob(event, part) for event, part in self._answer()]
        if not told and not said and not self.choice.done:
            return None
        return ChatLogprobs(content=said, reasoning_content=told if self.thoughts else None)

    def _answer(self) -> Iterator[tuple[TokenEvent, bytes]]:
        """The next tokens of the answer and their bytes in it."""
        answer, over = self.choice.parts[1].encode(errors="replace"), self.choice.done is not None
        while self._waiting:
            event = self._waiting[0]
            silent = self.tokens.is_special(event.id)
            part = b"" if silent else self.tokens[event.id]
            found = matched(part, answer[self._said :], over=over) if part else (b"", 0)
            if found is None:
                return
            self._waiting.popleft()
            self._said += found[1]
            if found[0]:
                yield event, found[0]

    def _logprob(self, event: TokenEvent, part: bytes) -> TokenLogprob:
        assert event.logprobs is not None
        top = [top_logprob(self.tokens[id_], p) for id_, p in event.logprobs.top]
        own = top_logprob(part, event.logprobs.token)
        return TokenLogprob(**own.model_dump(), top_logprobs=top)


class TextTokens:
    """The tokens of a choice that have not been sent, and their places in its text."""

    def __init__(self, choice: Choice, tokens: TokenBytes) -> None:
        self.choice, self.tokens = choice, tokens
        self._offsets, self._begun = Offsets(), False
        self._placed: list[tuple[bytes, int]] = []  # of each token: bytes and offset
        self._released, self._sent = 0, 0  # characters of the placed tokens; tokens

    def news(self) -> TextLogprobs | None:
        """The new tokens whose places are known; None without any, or unless asked for.

        A stop string may still cut the text before the others.
        """
        choice = self.choice
        if choice.request.sampler.logprobs is None:
            return None
        for event in choice.tokens[len(self._placed) :]:
            self._placed.append(self._place(event))
        found = TextLogprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
        for event, (part, offset) in self._unsent():
            if offset > len(choice.text) and not choice.done:
                break
            self._add(found, event, part, min(offset, len(choice.text)))
            self._sent += 1
        return found if found.tokens or choice.done else None

    def _place(self, event: TokenEvent) -> tuple[bytes, int]:
        """The bytes of the next token and its offset; a special token takes no room."""
        special = self.tokens.is_special(event.id)
        begins = not (special or self._begun)
        part = self.tokens.begins(event.id) if begins else self.tokens[event.id]
        offset = self._offsets.push(b"" if special else part, self._released)
        self._begun |= begins
        self._released += len(event.text)
        return part, offset

    def _unsent(self) -> list[tuple[TokenEvent, tuple[bytes, int]]]:
        unsent = slice(self._sent, None)
        return list(zip(self.choice.tokens[unsent], self._placed[unsent], strict=True))

    def _add(self, found: TextLogprobs, event: TokenEvent, part: bytes, offset: int) -> None:
        assert event.logprobs is not None
        found.tokens.append(shown(part))
        found.token_logprobs.append(event.logprobs.token)
        top = [(shown(self.tokens[id_]), p) for id_, p in event.logprobs.top]
        found.top_logprobs.append(dict(reversed(top)))  # of two with equal text the likelier
        found.text_offset.append(offset)


def shown(part: bytes) -> str:
    """A token's text; U+FFFD for a part of a character."""
    return part.decode(errors="replace")


def top_logprob(part: bytes, logprob: float) -> TopLogprob:
    return TopLogprob(token=shown(part), logprob=logprob, bytes=list(part))
