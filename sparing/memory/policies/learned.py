"""Predicted importance: the slots that later tokens will attend to stay."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from sparing.engine.eviction import EvictionPolicy, SlotView
from sparing.memory.policies.policy import BuiltInPolicy


@dataclass(frozen=True)
class Learned(BuiltInPolicy):
    """DynTS (arXiv 2601.18383): the slots with the highest predicted importance stay.

    A slot has a score for each of ``horizons``. The largest horizon not above the slot's age
    counts, the first one for younger slots. That is ours; the paper has a single score.
    """

    horizons: Sequence[int] = (0,)
    name, label = "learned", "learned importance"
    needs_predictor = True
    watches = 0

    @classmethod
    def for_model(cls, tokenizer: Any, horizons: Sequence[int]) -> EvictionPolicy:
        return cls(horizons)

    def score(self, view: SlotView) -> Float[np.ndarray, " S"]:
        ages = view.positions[-1] - view.positions
        chosen = np.searchsorted(self.horizons, ages, side="right") - 1
        return view.scores[np.arange(len(ages)), chosen.clip(0)].astype(np.float64)
