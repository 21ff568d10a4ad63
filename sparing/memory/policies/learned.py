"""Predicted importance: what the answer will need stays."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sparing.engine.eviction import SlotView


@dataclass(frozen=True)
class Learned:
    """DynTS (arXiv 2601.18383): the slots that the predictor scored highest."""

    name = "learned"
    watches = 0

    def score(self, view: SlotView) -> Float[np.ndarray, " S"]:
        return view.scores.astype(np.float64)
