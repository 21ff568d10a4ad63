"""The text and tokens of a row and its end: every picked token goes through it, drafted or not."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool
from torch import Tensor

from sparing.engine.cache import Kind
from sparing.engine.events import Logprobs
from sparing.engine.latent_switch import Latents
from sparing.engine.sampling import Draw, Sampler
from sparing.engine.text_stream import TextStream
from sparing.model.chat import ChatFormat, Prompt


@dataclass(frozen=True)
class Limits:
    """The limits of a row.

    ``max_new_tokens``: latents included
    ``context``: trained positions
    ``end_ids``: tokens that end the row
    ``stop``: strings that end the row
    ``stop_in_thought``: whether they do so in a thought too
    ``think_budget``: the most tokens of thinking; None: no limit
    ``ended``: whether the row ends behind these tokens, prompt and output
    """

    max_new_tokens: int
    context: int
    end_ids: frozenset[int] = frozenset()
    stop: list[str] = field(default_factory=list)
    stop_in_thought: bool = True
    think_budget: int | None = None
    ended: Callable[[Sequence[int]], bool] | None = None


@dataclass(frozen=True)
class Span:
    """A thought or an answer in a row's text.

    ``begin``: its first character
    ``marker``: first character of the marker before it
    ``thought``: whether it is a thought
    """

    begin: int
    marker: int
    thought: bool


BLANK_LINES = re.compile(r"\A(?:[^\S\n]*\n)+")
SPACES = re.compile(r"\A[^\S\n]+")


class Transcript:
    """Tokens, text and kinds of a row, built one token at a time.

    ``tokens``: prompt and output, without latents
    ``position``: of the next token or latent
    ``forced``: the next tokens, in place of the model's choice
    ``finish_reason``: None until the row ends
    ``evictable_tokens``: of the thought; without markers of all that was said
    """

    def __init__(
        self,
        chat: ChatFormat,
        prompt: Prompt,
        sampler: Sampler,
        limits: Limits,
        vocabulary: int,
    ) -> None:
        self._markers, self._sampler, self._limits = chat.markers, sampler, limits
        self.tokens, self.question = list(prompt.ids), len(prompt.ids)
        self.position, self.latents = self.question, Latents(0, 0)
        self.finish_reason: str | None = None
        self.tail = ""
        self.forced: list[int] = []
        self.thinking, self.notice = prompt.thinking, prompt.notice
        self.evictable_tokens = 0
        self._text = TextStream(chat.tokenizer, limits.stop)
        self._spans = [Span(0, 0, self.thinking)]
        self._watch()
        self._searched = 0  # end of the text searched for the next marker
        self._seen = self._ids_seen(vocabulary) if sampler.repetition_penalty != 1.0 else None
        self._close_thought_in_time()

    @property
    def new_tokens(self) -> int:
        return len(self.tokens) - self.question

    @property
    def thinking_tokens(self) -> int:
        return 0 if self._markers is None else self.evictable_tokens

    @property
    def room(self) -> int:
        """The number of tokens until a limit."""
        by_context = self._limits.context - self.position
        return min(self._limits.max_new_tokens - (self.position - self.question), by_context)

    @property
    def kind(self) -> Kind:
        """The kind of the next slot; without markers every slot may be evicted, as a thought's."""
        return Kind.THOUGHT if self._markers is None or self.thinking else Kind.ANSWER

    def told(self, kind: Kind) -> str:
        """A slot's kind for readers: without markers all text is the answer."""
        return "answer" if self._markers is None else kind.name.lower()

    @property
    def text(self) -> str:
        return self._text.text

    def settled(self, argmax: int) -> tuple[int, bool] | None:
        """The next token and whether it is forced; None if it must be drawn.

        ``argmax``: of the unchanged logits
        """
        if self.forced:
            return self.forced.pop(0), True
        return (argmax, False) if self._sampler.is_argmax else None

    def draw(self, ahead: int = 0) -> Draw:
        """The Draw of the token ``ahead`` positions on, with the repetition penalty as of now. A
        processor is asked for the next token alone: it may keep a state."""
        return Draw(self._sampler, self.position + ahead, self._seen)

    def draws(self, ahead: Iterable[int]) -> list[Draw]:
        """The Draws of tokens that are so many positions on; none where tokens before them change
        the draw, or nothing is drawn."""
        drawn = self._sampler.temperature > 0 and self._sampler.plain
        return [self.draw(distance) for distance in ahead] if drawn else []

    def pick(self) -> Draw:
        """The Draw of the next token, as it will be said."""
        return Draw(self._sampler, self.position, self._seen, self.tokens)

    def logprobs(self, logits: Tensor, token: int) -> Logprobs | None:
        """The Logprobs of a token picked from these logits; None unless asked for."""
        return self._sampler.told(logits, token)

    def append(self, token: int) -> tuple[str, Kind]:
        """Add a token; returns the released text and the token's kind."""
        kind = self.kind
        self.tokens.append(token)
        self.position += 1
        self.latents = Latents(0, self.latents.total)
        if self._seen is not None:
            self._seen[token] = True
        piece = self._text.push(token)
        kind = self._follow_markers(token, kind, piece)
        text, stopped = self._text.release()
        self.evictable_tokens += kind == Kind.THOUGHT
        self._finish(token, stopped)
        if self.finish_reason is None:
            self._close_thought_in_time()
        elif not stopped:
            text += self._text.finish()
        return text, kind

    def append_latent(self) -> None:
        """Add a latent step: a position without a token."""
        self.position += 1
        self.latents = Latents(self.latents.in_a_row + 1, self.latents.total + 1)
        self._finish_if_full()
        if self.finish_reason is not None:
            self.end(self.finish_reason)

    def end(self, reason: str) -> str:
        """End the row without a token; returns the text held back, also kept as ``tail``."""
        self.finish_reason, self.tail = reason, self._text.finish()
        return self.tail

    def split(self, text: str, *, so_far: bool = False) -> tuple[str, str]:
        """Split ``text``, the row's text or its beginning, into thinking and answer.

        Markers are removed, and blank lines in front of an answer or the spaces between it and a
        marker on the same line: its indentation stays. Without markers all text is the answer.

        ``so_far`` leaves out an end that may be the beginning of a marker, so that both parts only
        grow. May be called from another thread than ``append``.
        """
        if self._markers is None:
            return "", text
        spans = self._spans
        ends = [span.marker for span in spans[1:]] + [len(text)]
        parts: dict[bool, list[str]] = {True: [], False: []}
        for span, end in zip(spans, ends, strict=True):
            part = text[span.begin : end]
            if so_far and end >= len(text):
                part = self._markers.without_begun(part, span.thought)
            if span.thought:  # a model may open a thought that its prompt has opened
                part = part.strip().removeprefix(self._markers.start).strip()
            elif BLANK_LINES.match(part) or span is spans[0]:
                part = BLANK_LINES.sub("", part).rstrip()
            else:
                part = SPACES.sub("", part).rstrip()
            parts[span.thought].append(part)
        return "\n".join(filter(None, parts[True])), "\n".join(filter(None, parts[False]))

    def _follow_markers(self, token: int, kind: Kind, piece: str) -> Kind:
        """Open or close the thought at a complete marker; markers belong to the thought.

        ``piece``: the token's text
        """
        if self._markers is None:
            return kind
        marker, ids = self._markers.next(self.thinking)
        if not self._ends_with(token, marker, ids):
            return kind
        if not piece:
            self._text.flush()
        decoded = self._text.decoded
        # The same letters may have been typed before a marker that is one token.
        begin = len(decoded) - len(piece) if len(ids) == 1 else self._spans[-1].begin
        found = decoded.rfind(marker, begin)
        self._begin(*((found, found + len(marker)) if found >= 0 else (len(decoded),) * 2))
        return Kind.THOUGHT

    def _begin(self, marker: int, begin: int) -> None:
        """Begin a span: a thought after an answer, an answer after a thought."""
        self.thinking, self._searched = not self.thinking, begin
        self._spans = [*self._spans, Span(begin, marker, self.thinking)]
        self._watch()

    def _watch(self) -> None:
        """Say where stop strings count: by default not in thoughts."""
        if not self._limits.stop_in_thought:
            begin = None if self.thinking else self._spans[-1].begin
            self._text.watch(begin, skip_newlines=len(self._spans) > 1)

    def _ends_with(self, token: int, marker: str, ids: tuple[int, ...]) -> bool:
        """Whether this token completed a marker: by its id, or by text for a marker of several."""
        if len(ids) == 1:
            return token == ids[0]
        begin = max(self._spans[-1].begin, self._searched - len(marker) + 1)
        self._searched = len(self._text.decoded)
        if tuple(self.tokens[-len(ids) :]) == ids:
            return True
        return self._text.decoded.find(marker, begin) >= 0

    def _close_thought_in_time(self) -> None:
        """Force the end marker when the thinking budget has room for nothing else.

        The room is always for the whole marker: a marker already begun may not be continued.
        """
        budget = self._limits.think_budget
        if budget is None or self._markers is None or not self.thinking or self.forced:
            return
        rest = list(self._markers.end_ids)
        for begun in range(len(rest) - 1, 0, -1):
            if self.tokens[-begun:] == rest[:begun] and self.new_tokens >= begun:
                rest = rest[begun:]
                break
        if self.evictable_tokens + len(self._markers.end_ids) >= budget:
            self.forced = rest

    def _finish(self, token: int, stopped: bool) -> None:
        ended = self._limits.ended
        if token in self._limits.end_ids or stopped or (ended and ended(self.tokens)):
            self.finish_reason = "stop"
        else:
            self._finish_if_full()

    def _finish_if_full(self) -> None:
        """End a row at a limit; latents count as tokens, since each takes a slot."""
        if self.position - self.question >= self._limits.max_new_tokens:
            self.finish_reason = "length"
        elif self.position >= self._limits.context:
            self.finish_reason = "context"

    def _ids_seen(self, vocabulary: int) -> Bool[Tensor, " V"]:
        seen = torch.zeros(vocabulary, dtype=torch.bool)
        seen[torch.tensor(self.tokens)] = True
        return seen
