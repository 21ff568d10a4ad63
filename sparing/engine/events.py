"""The events of a row. Replaying them gives all of its stats.

Positions count from the first prompt token, 0. Eviction does not change them.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class Event:
    """An event; it never changes once it is sent. ``row``: the number of its prompt in the call."""

    type: ClassVar[str]
    row: int = field(default=0, kw_only=True)

    def to_dict(self) -> dict[str, Any]:
        return {"type": self.type, **asdict(self)}


@dataclass(frozen=True)
class StepEvent(Event):
    """A position was filled.

    ``drafted``: number of drafted tokens in the row's step, in the step's first event
    ``kv_bytes``: bytes of the row's keys and values, free slots included
    ``slots``: slots in use by the positions before it
    """

    drafted: int = field(default=0, kw_only=True)
    kv_bytes: int = field(default=0, kw_only=True)
    slots: int = field(default=0, kw_only=True)


@dataclass(frozen=True)
class Logprobs:
    """log p under the full model, at temperature 1 and before any filter.

    ``token``: of the picked token
    ``top``: ids and log p of the likeliest tokens, the likeliest first
    """

    token: float
    top: list[tuple[int, float]]


@dataclass(frozen=True)
class TokenEvent(StepEvent):
    """One new token.

    ``text``: the text it released (half a code point or half a stop string is held back)
    ``kind``: thought or answer
    ``origin``: model, draft or forced
    ``confidence``: the model's top-1 probability at its position
    ``score``: its predicted importance, if known by now; else a ScoreEvent follows
    ``logprobs``: None unless asked for
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
    """One latent step; ``top``: its likeliest words, with probabilities."""

    type: ClassVar[str] = "latent"
    position: int
    top: list[tuple[str, float]]


@dataclass(frozen=True)
class ScoreEvent(Event):
    """Predicted importance of an earlier token or latent, for the predictor's first horizon.

    A row's last token has no score: it never goes through the model.
    """

    type: ClassVar[str] = "score"
    position: int
    score: float


@dataclass(frozen=True)
class EvictEvent(Event):
    """The keys and values of ``positions`` were freed: positions from ``at`` do not see them.

    ``slots``: slots still in use
    """

    type: ClassVar[str] = "evict"
    positions: list[int]
    at: int
    slots: int = 0


@dataclass(frozen=True)
class LayersEvent(Event):
    """The drafting layer set.

    ``skipped``: skipped sub-layers such as "attention.3" and "mlp.7"; empty if it is not used
    ``matchness``: the share of recent tokens with the same choice as the full model's
    ``phase``: accumulation, optimization or acceleration
    """

    type: ClassVar[str] = "layers"
    skipped: list[str]
    matchness: float
    phase: str


@dataclass(frozen=True)
class DoneEvent(Event):
    """The end of a row.

    ``finish_reason``: stop, length, budget, context, interrupted or error
    ``text``: the text held back until now
    ``draft_seconds``, ``search_seconds``: parts of ``seconds``, shared with other rows
    ``error``: the error that ended this row alone, or None
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
    """A row's totals.

    ``kv_bytes_peak``: measured from storages, free slots included
    ``slots_peak``: the most slots in use, in each layer
    ``seconds``: since admission, ``draft_seconds`` and ``search_seconds`` included
    """

    new_tokens: int = 0
    thinking_tokens: int = 0
    latent_tokens: int = 0
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    kv_bytes_peak: int = 0
    slots_peak: int = 0
    evictions: int = 0
    evicted_tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    policy: str = "full"
    draft: str = "off"
    draft_seconds: float = 0.0
    search_seconds: float = 0.0

    def add(self, event: Event) -> None:
        """Add one event to the totals."""
        if isinstance(event, StepEvent):
            self.drafted += event.drafted
            self.kv_bytes_peak = max(self.kv_bytes_peak, event.kv_bytes)
            self.slots_peak = max(self.slots_peak, event.slots)
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
    """Compute a row's stats from its events."""
    stats = Stats()
    for event in events:
        stats.add(event)
    return stats


def scores_by_position(events: Iterable[Event]) -> dict[int, float]:
    """Predicted importance by position, from a row's events."""
    told = (event for event in events if isinstance(event, TokenEvent | ScoreEvent))
    return {event.position: event.score for event in told if event.score is not None}
