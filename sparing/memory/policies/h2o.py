"""Heavy hitters: the slots with the most attention so far stay."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sparing.engine.eviction import SlotView
from sparing.memory.policies.policy import BuiltInPolicy


@dataclass(frozen=True)
class H2O(BuiltInPolicy):
    """H2O (arXiv 2306.14048), uniform variant: the accumulated attention of a slot.

    ``score_j = sum_i A[i, j]`` over generated tokens i, with A the mean over layers and heads; in
    the paper each head sums and keeps its own. There the prompt's queries count as well, prompt
    tokens can go, and one slot is freed a step; here the question is protected and many go at once.
    """

    name, label = "h2o", "H2O"
    per_head_in_paper = True
    watches = 1

    def score(self, view: SlotView) -> Float[np.ndarray, " S"]:
        assert view.attention is not None, "it watches attention"
        total = view.attention.total
        return np.pad(total, (0, len(view.positions) - len(total)))  # before any query: zeros
