"""The predictor reversed: shows that its order matters."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sparing.engine.eviction import SlotView


@dataclass(frozen=True)
class Bottom:
    """The slots that the predictor scored lowest stay."""

    name = "bottom"
    watches = 0

    def score(self, view: SlotView) -> Float[np.ndarray, " S"]:
        return -view.scores.astype(np.float64)
