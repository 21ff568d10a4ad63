"""The predictor reversed: shows that its order matters."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sparing.engine.eviction import SlotView
from sparing.memory.policies.learned import Learned


@dataclass(frozen=True)
class Bottom:
    """The slots that the predictor scored lowest stay."""

    horizons: Sequence[int] = (0,)
    name = "bottom"
    watches = 0

    def score(self, view: SlotView) -> Float[np.ndarray, " S"]:
        return -Learned(self.horizons).score(view)
