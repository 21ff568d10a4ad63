"""What happened, as it happens. Replaying a row's events gives every one of its stats.

Positions count from the first prompt token, 0, and never change, whatever is evicted.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class Event:
    """Never changes once it is sent. ``row``: which prompt of the call it belongs to."""

    type: ClassVar[str]
    row: int = field(default=0, kw_only=True)

    def to_dict(self) -> dict[str, Any]:
        return {"type": self.type, **asdict(self)}


@dataclass(frozen=True)
class StepEvent(Event):
    """A position was filled.

    ``drafted``: how many tokens were proposed for the row's step, in the step's first event.
    ``kv_bytes``: what the row's keys and values took at that moment, free slots included.
    ``slots``: how many slots the positions before it used.
    """

    drafted: int = field(default=0, kw_only=True)
    kv_bytes: int = field(default=0, kw_only=True)
    slots: int = field(default=0, kw_only=True)


@dataclass(frozen=True)
class Logprobs:
    """log p of a token under the full model, at temperature 1 and before any filter; ``top``: ids
    of the likeliest tokens and theirs, best first."""

    token: float
    top: list[tuple[int, float]]


@dataclass(frozen=True)
class TokenEvent(StepEvent):
    """One new token.

    ``text``: what became readable with it (half a code point or half a stop string waits).
    ``kind``: thought or answer.
    ``origin``: model, draft or forced.
    ``confidence``: the model's top-1 probability there.
    ``score``: its predicted importance where it is known already; else a ScoreEvent tells it.
    ``logprobs``: None unless asked for.
    """

    type: ClassVar[str] = "token"
    position: int
    id: int
    text: str
    kind: str
    origin: str
    confidence: float
    score: float | None = None
    logprobs: Logprobs | None = None


@dataclass(frozen=True)
class LatentEvent(StepEvent):
    """One step thought without a word; ``top``: the likeliest words in it, with probabilities."""

    type: ClassVar[str] = "latent"
    position: int
    top: list[tuple[str, float]]


@dataclass(frozen=True)
class ScoreEvent(Event):
    """Predicted importance of a token or a latent that was sent before, for the first of the
    predictor's horizons. The last one of a row has none: it never goes through the model."""

    type: ClassVar[str] = "score"
    position: int
    score: float


@dataclass(frozen=True)
class EvictEvent(Event):
    """Positions whose keys and values were freed: positions >= ``at`` no longer see them.
    ``slots``: how many are still in use."""

    type: ClassVar[str] = "evict"
    positions: list[int]
    at: int
    slots: int = 0


@dataclass(frozen=True)
class LayersEvent(Event):
    """The drafting layer set.

    ``skipped``: "attention.3", "mlp.7", none where it is not used.
    ``matchness``: the share of recent tokens on which it agreed with the full model.
    ``phase``: accumulation, optimization or acceleration.
    """

    type: ClassVar[str] = "layers"
    skipped: list[str]
    matchness: float
    phase: str


@dataclass(frozen=True)
class DoneEvent(Event):
    """The row's end: stop, length, budget, context, interrupted or error.

    ``text``: what had been held back.
    ``draft_seconds``, ``search_seconds``: parts of ``seconds``, shared with other rows.
    ``error``: what went wrong with this row, the others go on; None: nothing.
    """

    type: ClassVar[str] = "done"
    finish_reason: str
    text: str = ""
    seconds: float = 0.0
    policy: str = "full"
    draft: str = "off"
    draft_seconds: float = 0.0
    search_seconds: float = 0.0
    error: str | None = None


@dataclass
class Stats:
    """A row's totals. ``kv_bytes_peak`` is measured from storages; seconds run from admission, and
    those of drafts and of the search for layer sets are among them."""

    new_tokens: int = 0
    thinking_tokens: int = 0
    latent_tokens: int = 0
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    kv_bytes_peak: int = 0
    evictions: int = 0
    evicted_tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    policy: str = "full"
    draft: str = "off"
    draft_seconds: float = 0.0
    search_seconds: float = 0.0

    def add(self, event: Event) -> None:
        """Take one event into account."""
        if isinstance(event, StepEvent):
            self.drafted += event.drafted
            self.kv_bytes_peak = max(self.kv_bytes_peak, event.kv_bytes)
        if isinstance(event, TokenEvent):
            self.new_tokens += 1
            self.thinking_tokens += event.kind == "thought"
            self.accepted += event.origin == "draft"
        elif isinstance(event, LatentEvent):
            self.latent_tokens += 1
        elif isinstance(event, EvictEvent):
            self.evictions += 1
            self.evicted_tokens += len(event.positions)
        elif isinstance(event, DoneEvent):
            for name in ("seconds", "policy", "draft", "draft_seconds", "search_seconds"):
                setattr(self, name, getattr(event, name))
            self.tokens_per_second = self.new_tokens / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def replay(events: Iterable[Event]) -> Stats:
    """The stats that a row's events add up to."""
    stats = Stats()
    for event in events:
        stats.add(event)
    return stats


def scores_by_position(events: Iterable[Event]) -> dict[int, float]:
    """Predicted importance, wherever a row's events tell it."""
    told = (event for event in events if isinstance(event, TokenEvent | ScoreEvent))
    return {event.position: event.score for event in told if event.score is not None}
