"""What a row has said, and when it is done: what every pick goes through, drafted or not."""

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
    """When a row ends. ``max_new_tokens``: latents included; ``context``: positions trained for."""

    max_new_tokens: int
    context: int
    end_ids: frozenset[int] = frozenset()
    stop: list[str] = field(default_factory=list)
    think_budget: int | None = None


class Transcript:
    """Tokens, text and kinds of a row, built one pick at a time.

    ``tokens``: prompt and output, without latents; ``position``: of the next token or latent;
    ``forced``: tokens that come next whatever the model says; ``finish_reason``: None while it
    goes on.
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
        self.thinking_tokens = 0
        self._text = TextStream(chat.tokenizer, limits.stop)
        self._spans: list[tuple[int, bool]] = [(0, self.thinking)]  # from which character: thought?
        self._searched = 0  # up to which character the next marker was looked for
        self._seen = self._ids_seen(vocabulary) if sampler.repetition_penalty != 1.0 else None
        self._close_thought_in_time()

    @property
    def new_tokens(self) -> int:
        return len(self.tokens) - self.question

    @property
    def room(self) -> int:
        """How many more tokens may come."""
        by_context = self._limits.context - self.position
        return min(self._limits.max_new_tokens - (self.position - self.question), by_context)

    @property
    def kind(self) -> Kind:
        """Of the next token; without markers every token is a thought (spec/memory.md)."""
        return Kind.THOUGHT if self._markers is None or self.thinking else Kind.ANSWER

    @property
    def text(self) -> str:
        return self._text.text

    def settled(self, argmax: int) -> tuple[int, bool] | None:
        """The next token and whether it was forced, where it needs no draw; ``argmax``: of the
        bare logits."""
        if self.forced:
            return self.forced.pop(0), True
        return (argmax, False) if self._sampler.is_argmax else None

    def draw(self, ahead: int = 0) -> Draw:
        """How the token is drawn that comes ``ahead`` positions on, a repetition penalty as now."""
        return Draw(self._sampler, self.position + ahead, self._seen)

    def logprobs(self, logits: Tensor, token: int) -> Logprobs | None:
        """What is to be told of a token that was picked from these logits."""
        return self._sampler.told(logits, token)

    def append(self, token: int) -> tuple[str, Kind]:
        """Take a token; returns the text that it released, and its kind."""
        kind = self.kind
        self.tokens.append(token)
        self.position += 1
        self.latents = Latents(0, self.latents.total)
        if self._seen is not None:
            self._seen[token] = True
        text, stopped = self._text.push(token)
        kind = self._follow_markers(token, kind)
        self.thinking_tokens += kind == Kind.THOUGHT
        self._finish(token, stopped)
        if self.finish_reason is None:
            self._close_thought_in_time()
        elif not stopped:
            text += self._text.finish()
        return text, kind

    def append_latent(self) -> None:
        """Take a latent step: a position without a token."""
        self.position += 1
        self.latents = Latents(self.latents.in_a_row + 1, self.latents.total + 1)
        self._finish_if_full()
        if self.finish_reason is not None:
            self.end(self.finish_reason)

    def end(self, reason: str) -> str:
        """Finish without a token; returns the text that had been held back, kept as ``tail``."""
        self.finish_reason, self.tail = reason, self._text.finish()
        return self.tail

    def split(self, text: str, *, so_far: bool = False) -> tuple[str, str]:
        """Thinking and answer in ``text``, which is the row's text or its beginning.

        Markers are removed; without markers all text is the answer. ``so_far``: without an end that
        may turn out to begin a marker, so that what follows only ever adds to both. May be called
        from another thread than the one that appends.
        """
        if self._markers is None:
            return "", text
        spans = self._spans
        ends = [start for start, _ in spans[1:]] + [len(text)]
        parts: dict[bool, list[str]] = {True: [], False: []}
        for (start, thought), end in zip(spans, ends, strict=True):
            part = text[start:end]
            if so_far and end >= len(text):
                part = self._markers.without_begun(part, thought)
            part = part.strip()
            if thought:
                part = part.removeprefix(self._markers.start).removesuffix(self._markers.end)
            parts[thought].append(part.strip())
        return "\n".join(filter(None, parts[True])), "\n".join(filter(None, parts[False]))

    def _follow_markers(self, token: int, kind: Kind) -> Kind:
        """Open or close the thought where a marker is complete; it belongs to the thought."""
        if self._markers is None:
            return kind
        if not self.thinking and self._ends_with(
            token, self._markers.start, self._markers.start_ids
        ):
            start = len(self._text.decoded)
            found = self._text.decoded.rfind(self._markers.start, self._spans[-1][0])
            self._begin(start if found < 0 else found)
            return Kind.THOUGHT
        if self.thinking and self._ends_with(token, self._markers.end, self._markers.end_ids):
            found = self._text.decoded.rfind(self._markers.end, self._spans[-1][0])
            end = found + len(self._markers.end) if found >= 0 else len(self._text.decoded)
            self._begin(end)
        return kind

    def _begin(self, start: int) -> None:
        """From that character on it is a thought, or no longer."""
        self.thinking, self._searched = not self.thinking, start
        self._spans = [*self._spans, (start, self.thinking)]

    def _ends_with(self, token: int, marker: str, ids: tuple[int, ...]) -> bool:
        """Whether this token completed a marker: by its id, or by the text where it has several."""
        if len(ids) == 1:
            return token == ids[0]
        begin = max(self._spans[-1][0], self._searched - len(marker) + 1)
        self._searched = len(self._text.decoded)
        if tuple(self.tokens[-len(ids) :]) == ids:
            return True
        return self._text.decoded.find(marker, begin) >= 0

    def _close_thought_in_time(self) -> None:
        """Force the end marker where the thinking budget leaves room for no more than that.

        Room for all of it, even where it is begun: the next token may go on in another way.
        """
        budget = self._limits.think_budget
        if budget is None or self._markers is None or not self.thinking or self.forced:
            return
        rest = list(self._markers.end_ids)
        for begun in range(len(rest) - 1, 0, -1):
            if self.tokens[-begun:] == rest[:begun] and self.new_tokens >= begun:
                rest = rest[begun:]
                break
        if self.thinking_tokens + len(self._markers.end_ids) >= budget:
            self.forced = rest

    def _finish(self, token: int, stopped: bool) -> None:
        if token in self._limits.end_ids or stopped:
            self.finish_reason = "stop"
        else:
            self._finish_if_full()

    def _finish_if_full(self) -> None:
        """Latents count as tokens do: each takes a slot, and slots are known before admission."""
        if self.position - self.question >= self._limits.max_new_tokens:
            self.finish_reason = "length"
        elif self.position >= self._limits.context:
            self.finish_reason = "context"

    def _ids_seen(self, vocabulary: int) -> Bool[Tensor, " V"]:
        seen = torch.zeros(vocabulary, dtype=torch.bool)
        seen[torch.tensor(self.tokens)] = True
        return seen
