"""Attention sinks and most recent tokens."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sparing.engine.cache import Kind
from sparing.engine.eviction import SlotView


@dataclass(frozen=True)
class Streaming:
    """StreamingLLM (arXiv 2309.17453): the first ``sinks`` thinking tokens beside the recent ones.

    Unlike the paper, the question is protected here as under every policy, so it holds the sinks
    of the prompt as well.
    """

    sinks: int = 4
    name = "streaming"
    watches = 0

    def score(self, view: SlotView) -> Float[np.ndarray, " S"]:
        first = np.flatnonzero(view.kinds != Kind.PROMPT)[: self.sinks]
        scores = view.positions.astype(np.float64)
        scores[first] += scores[-1] + 1
        return scores
