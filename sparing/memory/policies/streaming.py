"""Attention sinks and most recent tokens."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sparing.engine.cache import Kind
from sparing.engine.eviction import SlotView
from sparing.memory.policies.policy import BuiltInPolicy


@dataclass(frozen=True)
class Streaming(BuiltInPolicy):
    """StreamingLLM (arXiv 2309.17453): the first ``sinks`` thinking tokens beside the recent ones.

    Unlike in the paper, the question is protected, as under every policy, and with it the sinks of
    the prompt.
    """

    sinks: int = 4
    name, label = "streaming", "first and recent"
    watches = 0

    def score(self, view: SlotView) -> Float[np.ndarray, " S"]:
        first = np.flatnonzero(view.kinds != Kind.PROMPT)[: self.sinks]
        scores = view.positions.astype(np.float64)
        scores[first] += scores[-1] + 1
        return scores
