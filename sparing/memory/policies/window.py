"""The most recent tokens stay."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sparing.engine.eviction import SlotView
from sparing.memory.policies.policy import BuiltInPolicy


@dataclass(frozen=True)
class Window(BuiltInPolicy):
    """Question and most recent tokens."""

    name, label = "window", "most recent"
    watches = 0

    def score(self, view: SlotView) -> Float[np.ndarray, " S"]:
        return view.positions.astype(np.float64)
