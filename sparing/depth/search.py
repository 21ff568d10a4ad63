"""Layer sets found on the live stream (SWIFT, arXiv 2410.06916, sec. 4.1; figure 003)."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sparing.depth.candidates import Mask, Proposals, as_layer_set, as_mask
from sparing.depth.costs import Costs
from sparing.depth.layer_sets import TunedLayerSet
from sparing.depth.matchness import Replay
from sparing.engine.cache import SlotCache
from sparing.engine.events import LayersEvent
from sparing.engine.row import Row
from sparing.model.decoder import Decoder
from sparing.model.matrix import Matrix

ENOUGH = 0.95  # matchness: the paper's schedule stops there
NO_GAIN, MOST_TRIED = 300, 1000  # candidates: it stops after so many without gain, or in all
SHARE = 0.05  # of the decoding time that ours may take
CANDIDATES = 4  # of a block
WORTH = 1.02  # tokens a plain step's time: below it nothing is drafted
FALLEN = 0.15  # below its matchness: acceptance at which a set is looked for again
MEMORY = 256  # judged tokens that acceptance remembers
TRUST = 64  # judged tokens that a set's matchness counts for, at first

Phase = Literal["accumulation", "optimization", "acceleration"]


@dataclass(frozen=True)
class Schedule:
    """``interval`` N tokens come before each of ``blocks`` m blocks of candidates, which are tried
    on the last ``window`` tokens. With the ``objective`` speed, ours, they get ``SHARE`` of the
    time; matchness is the paper's: one ratio, a candidate a step, a single block."""

    interval: int = 32
    blocks: int = 6
    window: int = 32
    objective: Literal["speed", "matchness"] = "speed"


class LayerSearch:
    """The layer set of an engine, for all its rows and requests, and how it is looked for.

    ``layer_set``: None while none is known that is worth it; ``matchness``: its own when it was
    last tried; ``acceptance``: of its drafts' tokens, the first wrong one of each included;
    ``seconds``: what the search has cost; ``steps``: of rows, that it has seen; ``news``: what
    has happened and not been told.
    """

    def __init__(
        self,
        decoder: Decoder,
        schedule: Schedule | None = None,
        known: TunedLayerSet | None = None,
        head: Matrix | None = None,
        most: int = 25,
    ) -> None:
        """``known``: a set found before, so that none is looked for until acceptance falls;
        ``head``, ``most``: of drafts, whose speed is estimated."""
        self.decoder, self.schedule = decoder, schedule or Schedule()
        self.head, self.most = head, most
        self.layer_set = known.layer_set if known else None
        self.matchness, self.score = (known.matchness, known.speed) if known else (0.0, 0.0)
        self.seconds = self._right = self._judged = 0.0
        self.steps = 0
        self._by_speed = self.schedule.objective == "speed"
        self._proposals = Proposals(decoder.shape.layers, near=self._by_speed)
        self._best = as_mask(known.layer_set) if known else self._proposals.first()
        if not self._by_speed and not known:
            self.layer_set = as_layer_set(self._best)
        self.news: list[LayersEvent] = []
        self._begin("acceleration" if known else "accumulation")

    def step(self, rows: Sequence[Row], cache: SlotCache) -> None:
        """Before a step's drafts: one candidate, where one is due and can be afforded."""
        if self.phase == "acceleration" or self._tokens < self._next_block:
            return
        next_s = 2 * self._candidate_s  # where it wins the best one is tried again beside it
        if self._by_speed and self._spent + next_s > SHARE * self._decoding:
            return
        begun = time.perf_counter()
        replays = (Replay.of(row, cache, self.schedule.window) for row in rows)
        if replay := next(filter(None, replays), None):
            self._advance(replay)
        seconds = time.perf_counter() - begun
        self.seconds += seconds
        self._spent += seconds

    def passed(self, seconds: float, tokens: int) -> None:
        """What a row's step took and brought."""
        self._decoding += seconds
        self._tokens += tokens
        self.steps += 1

    def learn(self, drafted: int, accepted: int) -> None:
        """How a draft of the layer set fared: ``drafted`` tokens in a row, siblings not counted."""
        judged = accepted + (accepted < drafted)
        keep = 0.5 ** (judged / MEMORY)
        self._right, self._judged = self._right * keep + accepted, self._judged * keep + judged
        fallen = self.acceptance < self.matchness - FALLEN
        if self.phase == "acceleration" and self.matchness and fallen:
            self._begin("accumulation")

    @property
    def tuned(self) -> TunedLayerSet | None:
        """What it has found, for another search to begin with."""
        return TunedLayerSet(self.layer_set, self.matchness, self.score) if self.layer_set else None

    @property
    def acceptance(self) -> float:
        return self._right / self._judged

    def tell(self) -> None:
        """Put the state of now among what is ``told``."""
        names = self.layer_set.names if self.layer_set else []
        self.news.append(LayersEvent(names, self.matchness, self.phase))

    def told(self) -> list[LayersEvent]:
        """What has happened since it was last asked."""
        events, self.news = self.news, []
        return events

    def _begin(self, phase: Phase) -> None:
        self._right, self._judged = TRUST * self.matchness, float(TRUST)
        self._spent = self._decoding = self._candidate_s = 0.0
        self._costs: Costs | None = None  # the context has grown since they were measured
        self._tokens = self._blocks = self._tried = self._without_gain = 0
        self._next_block = self.schedule.interval if self._by_speed else self.schedule.window
        self._enter(phase)

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.tell()

    def _advance(self, replay: Replay) -> None:
        """A candidate; where a block begins, the best set anew on the context of now."""
        if self.phase == "accumulation":
            self._enter("optimization")
            if self._by_speed and self._costs is None:
                self._costs = replay.costs(self.decoder, self.head)
            self._take(self._best, *self._tried_on(replay, self._best))
            return
        candidate = self._proposals.next(self._best)
        matchness, score = self._tried_on(replay, candidate)
        self._tried += 1
        self._without_gain += 1
        if score > self.score:  # perhaps on easier text: both on the same
            self.matchness, self.score = self._tried_on(replay, self._best)
            if score > self.score:
                self._without_gain = 0
                self._take(candidate, matchness, score)
        self._end_block()

    def _end_block(self) -> None:
        if not self._by_speed:
            done = self.matchness > ENOUGH or self._without_gain >= NO_GAIN
            if done or self._tried >= MOST_TRIED or self._proposals.exhausted:
                self._enter("acceleration")
        elif self._tried % CANDIDATES == 0:
            self._blocks += 1
            self._next_block = self._tokens + self.schedule.interval
            over = self._blocks >= self.schedule.blocks
            self._enter("acceleration" if over else "accumulation")

    def _tried_on(self, replay: Replay, mask: Mask) -> tuple[float, float]:
        """Matchness, and what is to be high."""
        layer_set, window = as_layer_set(mask), self.schedule.window
        begun = time.perf_counter()
        matchness = score = replay.matchness(self.decoder, layer_set)
        self._candidate_s = time.perf_counter() - begun
        if self._costs:
            score = self._costs.cautious_speed(layer_set, matchness, window, self.most)
        self._proposals.scores.append((mask, score))
        return matchness, score

    def _take(self, mask: Mask, matchness: float, score: float) -> None:
        self._best, self.matchness, self.score = mask, matchness, score
        worth = not self._by_speed or score >= WORTH
        self.layer_set = as_layer_set(mask) if worth else None
        self._right, self._judged = TRUST * matchness, float(TRUST)
        self._enter(self.phase)
