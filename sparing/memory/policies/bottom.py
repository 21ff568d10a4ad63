"""The predictor reversed, as a control: its order should matter."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from sparing.engine.eviction import EvictionPolicy, SlotView
from sparing.memory.policies.learned import Learned
from sparing.memory.policies.policy import BuiltInPolicy


@dataclass(frozen=True)
class Bottom(BuiltInPolicy):
    """The slots with the lowest predicted importance stay."""

    horizons: Sequence[int] = (0,)
    name, label = "bottom", "least important (upside down)"
    needs_predictor = True
    watches = 0

    @classmethod
    def for_model(cls, tokenizer: Any, horizons: Sequence[int]) -> EvictionPolicy:
        return cls(horizons)

    def score(self, view: SlotView) -> Float[np.ndarray, " S"]:
        return -Learned(self.horizons).score(view)
