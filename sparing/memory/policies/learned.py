"""Predicted importance: what will still be looked at stays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sparing.engine.eviction import SlotView


@dataclass(frozen=True)
class Learned:
    """DynTS (arXiv 2601.18383): the slots that the predictor scored highest.

    It scored each once for every one of ``horizons``; the one that counts is the largest not above
    the slot's age, the first for younger ones. That is ours, the paper has a single score.
    """

    horizons: Sequence[int] = (0,)
    name = "learned"
    watches = 0

    def score(self, view: SlotView) -> Float[np.ndarray, " S"]:
        ages = view.positions[-1] - view.positions
        chosen = np.searchsorted(self.horizons, ages, side="right") - 1
        return view.scores[np.arange(len(ages)), chosen.clip(0)].astype(np.float64)
