"""Chance, as a baseline for all policies."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from sparing.engine.eviction import SlotView
from sparing.engine.sampling import uniform
from sparing.memory.policies.policy import BuiltInPolicy

ANY_TOKEN = -1  # stands for the token id in the hash


@dataclass(frozen=True)
class Random(BuiltInPolicy):
    """Noise hashed from the row's seed and the position: a slot's score never changes."""

    name, label = "random", "at random"
    watches = 0

    def score(self, view: SlotView) -> Float[np.ndarray, " S"]:
        positions = torch.from_numpy(view.positions)
        return uniform(view.seed, ANY_TOKEN, positions).numpy()
