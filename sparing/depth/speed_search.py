"""Layer sets by expected speed, found on the live stream in 5 % of the time. Ours."""

import random
import time

from sparing.depth.candidates import changed, every_second, later_half
from sparing.depth.costs import Costs
from sparing.depth.layer_sets import TunedLayerSet
from sparing.depth.matchness import Replay
from sparing.depth.search import LayerSearch, Phase
from sparing.model.inputs import Forward
from sparing.model.layer_set import LayerSet
from sparing.model.matrix import Matrix
from sparing.options import Depth

SHARE = 0.05  # of the decoding time, at most
CANDIDATES = 4  # of a block
WORTH = 1.02  # tokens a plain step's time; below it nothing is drafted
FALLEN = 0.15  # acceptance that far below the matchness starts the search again
MEMORY = 256  # judged tokens that acceptance remembers
TRUST = 64  # judged tokens that a set's matchness counts for at first


class SpeedSearch(LayerSearch):
    """Blocks of candidates, ``depth.interval`` tokens before each of ``depth.blocks``.

    A candidate is the best set with a few sub-layers turned over, scored by the expected tokens a
    plain step's time (``Costs.cautious_speed``), so the number of skipped sub-layers is free. The
    search begins with every second layer skipped, then an early exit. It starts again where the
    acceptance of drafts falls. SWIFT scores matchness at one ratio: ``SwiftSearch``.

    ``tried``: candidates since the search began.
    """

    def __init__(
        self,
        decoder: Forward,
        depth: Depth | None = None,
        known: TunedLayerSet | None = None,
        head: Matrix | None = None,
    ) -> None:
        """``known``: a set found before, used until its acceptance falls.
        ``head``: of drafts, whose cost counts."""
        self.depth, self.head = depth or Depth(), head
        layers = decoder.shape.layers
        best = known or TunedLayerSet(every_second(layers), 0.0, 0.0)
        phase: Phase = "acceleration" if known else "accumulation"
        super().__init__(decoder, best, phase, self.depth.window)
        if not known:
            self.layer_set = None
        self._random = random.Random(0)
        self._first: LayerSet | None = later_half(layers)
        self._right = self._judged = 0.0
        self._begin(phase)

    def count(self, seconds: float, tokens: int) -> None:
        super().count(seconds, tokens)
        self._decoding += seconds

    def learn(self, drafted: int, accepted: int) -> None:
        judged = accepted + (accepted < drafted)  # behind the first wrong token nothing is judged
        keep = 0.5 ** (judged / MEMORY)
        self._right, self._judged = self._right * keep + accepted, self._judged * keep + judged
        fallen = self.acceptance < self.matchness - FALLEN
        if self.phase == "acceleration" and self.matchness and fallen:
            self._begin("accumulation")

    @property
    def acceptance(self) -> float:
        """Share of judged tokens that were right, by a running mean."""
        return self._right / self._judged

    @property
    def tuned(self) -> TunedLayerSet | None:
        """The set in use, for another search to begin with."""
        return self.best if self.layer_set else None

    def take(self, found: TunedLayerSet) -> None:
        self._trust(found.matchness)
        self.best, self.layer_set = found, found.layer_set if found.speed >= WORTH else None
        self.tell()

    def _begin(self, phase: Phase) -> None:
        self._trust(self.matchness)
        self._spent_before, self._decoding, self._candidate_s = self.seconds, 0.0, 0.0
        self._costs: Costs | None = None  # the context has grown since the last measurement
        self.tried, self._blocks = 0, 0
        self._next_block = self.tokens + self.depth.interval
        self.enter(phase)

    def _trust(self, matchness: float) -> None:
        """Acceptance begins at the matchness."""
        self._right, self._judged = TRUST * matchness, float(TRUST)

    def _due(self) -> bool:
        """Between blocks no candidate is due, nor where the next one would exceed ``SHARE``."""
        spent = self.seconds - self._spent_before
        next_s = 2 * self._candidate_s  # a winner is compared with the best set once more
        return self.tokens >= self._next_block and spent + next_s <= SHARE * self._decoding

    def _advance(self, replay: Replay) -> None:
        """A candidate; at the start of a block the best set on the present context."""
        if self.phase == "accumulation":
            self.enter("optimization")
            if self._costs is None:
                self._costs = replay.costs(self.decoder, self.head)
            self.take(self._measured(replay, self.best.layer_set))
            return
        found = self._measured(replay, self._candidate())
        self.tried += 1
        if found.speed > self.best.speed:  # perhaps on easier text: compare on the same
            self.best = self._measured(replay, self.best.layer_set)
            if found.speed > self.best.speed:
                self.take(found)
        if self.tried % CANDIDATES == 0:
            self._blocks += 1
            self._next_block = self.tokens + self.depth.interval
            over = self._blocks >= self.depth.blocks
            self.enter("acceleration" if over else "accumulation")

    def _candidate(self) -> LayerSet:
        first, self._first = self._first, None
        return first or changed(self.best.layer_set, self._random)

    def _measured(self, replay: Replay, layer_set: LayerSet) -> TunedLayerSet:
        """Matchness and expected speed on the replayed tokens."""
        assert self._costs is not None, "a block begins with a measurement"
        begun = time.perf_counter()
        matchness = replay.matchness(self.decoder, layer_set)
        self._candidate_s = time.perf_counter() - begun
        speed = self._costs.cautious_speed(layer_set, matchness, self.window, self.depth.max_draft)
        return TunedLayerSet(layer_set, matchness, speed)
