"""Which layer set to try next (SWIFT, arXiv 2410.06916, sec. 4.1)."""

import math
import random
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

from sparing.depth.gaussian_process import GaussianProcess
from sparing.model.layer_set import LayerSet

Mask = Bool[np.ndarray, " M"]  # True: skipped. Attention and MLP of layer 1, of layer 2, ...

RATIO = 0.45  # of all sub-layers, skipped at the start and by the paper's proposals
EVERY = 25  # every so many candidates, one by the Gaussian process
KAPPA, NOISE = 2.5, 1e-2  # of its upper confidence bound; variance of a score
POOL, REMEMBERED = 256, 200  # candidates that it rates; scores that it is fitted to


def as_layer_set(skipped: Mask) -> LayerSet:
    """The first and the last layer always run."""
    pairs = ~skipped.reshape(-1, 2)
    return LayerSet((True, *map(bool, pairs[:, 0]), True), (True, *map(bool, pairs[:, 1]), True))


def as_mask(layer_set: LayerSet) -> Mask:
    """Inverse of ``as_layer_set``."""
    pairs = zip(layer_set.attention[1:-1], layer_set.mlp[1:-1], strict=True)
    return ~np.array(list(pairs), dtype=bool).reshape(-1)


@dataclass
class Proposals:
    """``layers`` of the model; ``near``: change the best set a little instead of drawing anew, its
    size free (ours; the paper draws at one ratio)."""

    layers: int
    near: bool
    seed: int = 0
    scores: list[tuple[Mask, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._given = 0
        pool = 2 * (self.layers - 2)
        self._wanted = min(round(2 * self.layers * RATIO), pool)
        self._all = 2**pool if self.near else math.comb(pool, self._wanted)

    def first(self) -> Mask:
        """Attention and MLP of every second layer, as the reference begins."""
        skipped = np.zeros((self.layers - 2, 2), bool)
        skipped[::2] = True
        return skipped.reshape(-1)

    def late(self) -> Mask:
        """The later half of the layers: an early exit."""
        skipped = np.zeros((self.layers - 2, 2), bool)
        skipped[self.layers // 2 :] = True
        return skipped.reshape(-1)

    def next(self, best: Mask) -> Mask:
        """One to try; ``scores`` are those of all that have been tried, first of the start."""
        self._given += 1
        if self.near and len(self.scores) == 1:
            return self.late()
        if self._given % EVERY == 0:
            return self._bayesian(best)
        return self._changed(best) if self.near else self._drawn()

    @property
    def exhausted(self) -> bool:
        """Whether all there are have been tried: few, in a model of three or four layers."""
        if len(self.scores) < self._all:
            return False
        return len({mask.tobytes() for mask, _ in self.scores}) >= self._all

    def _drawn(self) -> Mask:
        skipped = np.zeros(2 * (self.layers - 2), bool)
        skipped[self._random.sample(range(len(skipped)), self._wanted)] = True
        return skipped

    def _changed(self, best: Mask) -> Mask:
        """One to three sub-layers turned over."""
        skipped = best.copy()
        count = self._random.choice((1, 1, 2, 3))
        turned = self._random.sample(range(len(skipped)), min(count, len(skipped)))
        skipped[turned] = ~skipped[turned]
        return skipped

    def _bayesian(self, best: Mask) -> Mask:
        """The highest upper confidence bound of a Gaussian process among drawn candidates."""
        known = self.scores[-REMEMBERED:]
        tried, found = np.array([mask for mask, _ in known], float), np.array([s for _, s in known])
        process = GaussianProcess.fit(tried, found, NOISE)
        pool = [self._changed(best) if self.near else self._drawn() for _ in range(POOL)]
        mean, spread = process.predict(np.array(pool, float))
        bound: Float[np.ndarray, " P"] = mean + KAPPA * spread
        return pool[int(bound.argmax())]
