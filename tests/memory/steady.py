from dataclasses import dataclass

import numpy as np

from sparing.engine.eviction import SlotView


@dataclass(frozen=True)
class Steady:
    """What is looked at most for its age stays."""

    name = "steady"
    watches = 1  # the attention of so many last tokens is wanted; 0: none, and it is not computed

    def score(self, view: SlotView) -> np.ndarray:
        """A number for each slot in use, in position order: higher stays."""
        ages = view.positions[-1] - view.positions + 1
        return view.attention.total / ages
