"""The layer set of an engine, and what its searches have in common."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

from sparing.depth.layer_sets import TunedLayerSet
from sparing.depth.matchness import Replay
from sparing.engine.cache import SlotCache
from sparing.engine.events import LayersEvent
from sparing.engine.row import Row
from sparing.model.inputs import Forward
from sparing.model.layer_set import LayerSet

Phase = Literal["accumulation", "optimization", "acceleration"]  # SWIFT, arXiv 2410.06916, sec. 4.1


class LayerSearch(ABC):
    """The layer set of an engine, shared by all rows and requests. ``SpeedSearch`` and
    ``SwiftSearch`` look for it.

    ``layer_set``: what drafts run; None while no set is worth it.
    ``best``: the best set so far, as it was last measured.
    ``phase``: accumulation of context, optimization, or acceleration.
    ``seconds``: the search's cost so far.
    ``steps``, ``tokens``: of decoding, counted by the search.
    """

    def __init__(self, decoder: Forward, best: TunedLayerSet, phase: Phase, window: int) -> None:
        """``window``: tokens that candidates are tried on."""
        self.decoder, self.best, self.phase, self.window = decoder, best, phase, window
        self.layer_set: LayerSet | None = best.layer_set
        self.seconds = 0.0
        self.steps = self.tokens = 0
        self._news: list[LayersEvent] = []

    @property
    def matchness(self) -> float:
        return self.best.matchness

    def step(self, rows: Sequence[Row], cache: SlotCache) -> None:
        """Try a candidate on one of the rows, if one is due and a row has the tokens and slots."""
        if self.phase == "acceleration" or not self._due():
            return
        begun = time.perf_counter()
        replays = (Replay.of(row, cache, self.window) for row in rows)
        if replay := next(filter(None, replays), None):
            self._advance(replay)
        self.seconds += time.perf_counter() - begun

    def count(self, seconds: float, tokens: int) -> None:
        """A step of decoding: its time and its new tokens."""
        self.steps += 1
        self.tokens += tokens

    def learn(self, drafted: int, accepted: int) -> None:  # noqa: B027  (optional)
        """The outcome of a draft with the set; ``drafted``: its length, siblings not counted."""

    def take(self, found: TunedLayerSet) -> None:
        """Draft with this set from now on."""
        self.best, self.layer_set = found, found.layer_set
        self.tell()

    def enter(self, phase: Phase) -> None:
        self.phase = phase
        self.tell()

    def tell(self) -> None:
        """Put the present state into the ``news``."""
        names = self.layer_set.names if self.layer_set else []
        self._news.append(LayersEvent(names, self.matchness, self.phase))

    def news(self) -> list[LayersEvent]:
        """The events since the last call."""
        events, self._news = self._news, []
        return events

    def announce(self) -> None:
        """Make sure that the next news are not empty: a new request wants to know the state."""
        if not self._news:
            self.tell()

    @abstractmethod
    def _due(self) -> bool:
        """Whether a candidate may be tried now."""

    @abstractmethod
    def _advance(self, replay: Replay) -> None:
        """Try a candidate."""
