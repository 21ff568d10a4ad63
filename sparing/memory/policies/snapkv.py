"""The slots that the last tokens attend to stay, with their neighbours."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sparing.engine.eviction import SlotView
from sparing.memory.policies.policy import BuiltInPolicy


@dataclass(frozen=True)
class SnapKV(BuiltInPolicy):
    """SnapKV (arXiv 2404.14469) while decoding, uniform variant: an observation window votes.

    ``score_j = max over |k - j| <= kernel // 2 of sum_i A[i, k]`` over the last ``window`` queries
    i, with A the mean over layers and heads; in the paper each head votes and keeps its own. There
    the prompt is compressed, once, and the window takes no part in the pooling; here it is the
    thoughts, at every eviction, and slots of question and window pass their votes to neighbours.
    """

    window: int = 16
    kernel: int = 7
    name, label = "snapkv", "SnapKV"
    per_head_in_paper = True

    @property
    def watches(self) -> int:
        return self.window

    def score(self, view: SlotView) -> Float[np.ndarray, " S"]:
        return max_pool(observed(view).sum(0), self.kernel)


def observed(view: SlotView) -> Float[np.ndarray, "m S"]:
    """The attention of the last queries, up to the watched number."""
    assert view.attention is not None, "it watches attention"
    recent = view.attention.recent
    return np.pad(recent, ((0, 0), (0, len(view.positions) - recent.shape[1])))


def max_pool(values: Float[np.ndarray, "*m S"], kernel: int) -> Float[np.ndarray, "*m S"]:
    """The maximum over ``kernel`` neighbours, fewer at the ends."""
    before = kernel // 2
    sides = [(0, 0)] * (values.ndim - 1) + [(before, kernel - 1 - before)]
    padded = np.pad(values, sides, constant_values=-np.inf)
    return np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=-1).max(-1)
