"""SWIFT's own search: random and Bayesian candidates, by matchness (arXiv 2410.06916, sec. 4.1)."""

import math
import random

import numpy as np
from jaxtyping import Float

from sparing.depth.candidates import Mask, as_layer_set, every_second
from sparing.depth.gaussian_process import GaussianProcess
from sparing.depth.layer_sets import TunedLayerSet
from sparing.depth.matchness import Replay
from sparing.depth.search import LayerSearch
from sparing.model.inputs import Forward
from sparing.model.layer_set import LayerSet

RATIO = 0.45  # of all sub-layers, skipped by every candidate
EVERY = 25  # each 25th candidate is the Gaussian process's
KAPPA, NOISE = 2.5, 1e-2  # of the upper confidence bound; variance of a score
POOL, REMEMBERED = 256, 200  # candidates that the process rates; scores that it is fitted to
ENOUGH = 0.95  # matchness above which the search stops
NO_GAIN, MOST_TRIED = 300, 1000  # candidates without gain, and in all, after which it stops


class Optimization:
    """Layer set optimization (algorithm 1): the set with the highest matchness at one ratio.

    Every 25th candidate maximises the upper confidence bound ``mean + kappa * deviation`` of a
    Gaussian process over the 0/1 vectors of sub-layers; the others are random. As in the reference
    code the start, every second layer, counts as matchness 0, so the first candidate replaces it.
    Differs in one point: the bound is maximised over ``POOL`` random sets, where the reference
    optimises a continuous vector and rounds it.

    ``best``, ``matchness``: the best set so far.
    ``tried``, ``without_gain``: candidates in all, and since the last better one.
    """

    def __init__(self, layers: int, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._pool = 2 * (layers - 2)
        self._skipped = min(round(2 * layers * RATIO), self._pool)
        self._sets = math.comb(self._pool, self._skipped)
        self._scores: list[tuple[Mask, float]] = []
        self._seen: set[bytes] = set()
        self._candidate: Mask | None = None
        self.best, self.matchness = every_second(layers), 0.0
        self.tried = self.without_gain = 0

    def next(self) -> LayerSet:
        """The candidate to score next."""
        bayesian = (self.tried + 1) % EVERY == 0 and self._scores
        self._candidate = self._bayesian() if bayesian else self._drawn()
        return as_layer_set(self._candidate)

    def learn(self, matchness: float) -> bool:
        """The candidate's score; returns whether it is the best so far."""
        assert self._candidate is not None, "next() comes first"
        self._scores.append((self._candidate, matchness))
        self._seen.add(self._candidate.tobytes())
        self.tried += 1
        better = matchness > self.matchness
        self.without_gain = 0 if better else self.without_gain + 1
        if better:
            self.best, self.matchness = as_layer_set(self._candidate), matchness
        return better

    @property
    def done(self) -> bool:
        """Whether to stop: good enough, no gain for long, the most tried, or no set left."""
        stopped = self.without_gain >= NO_GAIN or self.tried >= MOST_TRIED
        return self.matchness > ENOUGH or stopped or self.distinct >= self._sets

    @property
    def distinct(self) -> int:
        """Different sets among the candidates; a model of few layers has few."""
        return len(self._seen)

    def _drawn(self) -> Mask:
        skipped = np.zeros(self._pool, bool)
        skipped[self._random.sample(range(self._pool), self._skipped)] = True
        return skipped

    def _bayesian(self) -> Mask:
        """The random set with the highest upper confidence bound."""
        known = self._scores[-REMEMBERED:]
        tried, found = np.array([mask for mask, _ in known], float), np.array([s for _, s in known])
        process = GaussianProcess.fit(tried, found, NOISE)
        pool = [self._drawn() for _ in range(POOL)]
        mean, deviation = process.predict(np.array(pool, float))
        bound: Float[np.ndarray, " P"] = mean + KAPPA * deviation
        return pool[int(bound.argmax())]


class SwiftSearch(LayerSearch):
    """The paper's schedule on the live stream: ``window`` tokens of context, then a candidate a
    step until the optimization is done, then acceleration for good.

    The set in use drafts from the start. Unlike ``SpeedSearch`` no share of the time bounds the
    search, and falling acceptance does not start it again. The reference code tries candidates on
    the first ``window`` tokens over a clone of the prompt's cache; here they are the last ones, in
    spare slots of the live cache.
    """

    def __init__(self, decoder: Forward, window: int) -> None:
        self.optimization = Optimization(decoder.shape.layers)
        start = TunedLayerSet(self.optimization.best, 0.0, 0.0)
        super().__init__(decoder, start, "accumulation", window)
        self.tell()

    def _due(self) -> bool:
        return self.tokens >= self.window

    def _advance(self, replay: Replay) -> None:
        if self.phase == "accumulation":
            self.enter("optimization")
        candidate = self.optimization.next()
        matchness = replay.matchness(self.decoder, candidate)
        if self.optimization.learn(matchness):
            self.take(TunedLayerSet(candidate, matchness, 0.0))  # its speed is not estimated
        if self.optimization.done:
            self.enter("acceleration")
