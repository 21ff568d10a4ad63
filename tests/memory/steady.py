from dataclasses import dataclass

import numpy as np

from sparing.engine.eviction import SlotView


@dataclass(frozen=True)
class Steady:
    """Keeps the tokens with the most attention for their age."""

    name = "steady"
    watches = 1  # how many last tokens' attention is wanted; 0: none is computed

    def score(self, view: SlotView) -> np.ndarray:
        """A number for each slot in use, in position order; higher stays."""
        ages = view.positions[-1] - view.positions + 1
        return view.attention.total / ages
