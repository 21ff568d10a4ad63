"""Heavy hitters: what has been looked at most stays."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sparing.engine.eviction import SlotView


@dataclass(frozen=True)
class H2O:
    """H2O (arXiv 2306.14048), uniform variant: the attention a slot has got, accumulated.

    ``score_j = sum_i A[i, j]`` over generated tokens i, with A the mean over layers and heads; in
    the paper each head sums and keeps its own. There the prompt's queries count as well, prompt
    tokens can go, and one slot is freed a step; here the question is protected and many go at once.
    """

    name = "h2o"
    watches = 1

    def score(self, view: SlotView) -> Float[np.ndarray, " S"]:
        assert view.attention is not None, "it watches attention"
        total = view.attention.total
        return np.pad(total, (0, len(view.positions) - len(total)))  # before any query: zeros
