"""The result of a finished row."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sparing.engine.events import DoneEvent, Event, Stats, TokenEvent, replay
from sparing.engine.transcript import Transcript


@dataclass(repr=False)
class Result:
    """The answer to one prompt.

    ``text``: all generated text
    ``thinking``, ``answer``: the two parts of ``text``, without markers
    ``finish_reason``: stop, length, budget (nothing could be evicted), context (the trained
        context is full), interrupted, or error
    ``notice``: a warning about the answer, for a question outside of the model's scope
    ``error``: the error that ended this row alone, or None
    """

    token_ids: list[int]
    prompt_token_ids: list[int]
    text: str
    thinking: str
    answer: str
    finish_reason: str
    stats: Stats
    notice: str | None = None
    error: str | None = None
    events: list[Event] = field(default_factory=list, repr=False)

    def __repr__(self) -> str:
        stats = self.stats
        return (
            f"Result(answer={self.answer!r}, finish_reason={self.finish_reason!r}, "
            f"{stats.thinking_tokens} of {stats.new_tokens} tokens thought, {stats.seconds:.1f} s)"
        )

    @classmethod
    def of(cls, transcript: Transcript, events: Sequence[Event]) -> "Result":
        """Build the result from a row's events, the last a DoneEvent; the transcript may be
        ahead of them."""
        last = events[-1]
        assert isinstance(last, DoneEvent)
        text = "".join(e.text for e in events if isinstance(e, TokenEvent | DoneEvent))
        thinking, answer = transcript.split(text)
        return cls(
            token_ids=[event.id for event in events if isinstance(event, TokenEvent)],
            prompt_token_ids=list(transcript.tokens[: transcript.question]),
            text=text,
            thinking=thinking,
            answer=answer,
            finish_reason=last.finish_reason,
            stats=replay(events),
            notice=transcript.notice,
            error=last.error,
            events=list(events),
        )

    def to_dict(self, events: bool = False) -> dict[str, Any]:
        """The result as a dict for JSON; ``events`` includes the events."""
        names = ("token_ids", "prompt_token_ids", "text", "thinking", "answer", "finish_reason")
        found: dict[str, Any] = {name: getattr(self, name) for name in names}
        found["stats"] = self.stats.to_dict()
        found["notice"], found["error"] = self.notice, self.error
        if events:
            found["events"] = [event.to_dict() for event in self.events]
        return found
