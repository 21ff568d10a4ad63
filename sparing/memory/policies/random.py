"""Chance, as the floor that every policy has to beat."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from sparing.engine.eviction import SlotView
from sparing.engine.sampling import uniform

ANY_TOKEN = -1  # the token id under which the noise is drawn


@dataclass(frozen=True)
class Random:
    """Noise hashed from the row's seed and the position: a slot's score never changes."""

    name = "random"
    watches = 0

    def score(self, view: SlotView) -> Float[np.ndarray, " S"]:
        positions = torch.from_numpy(view.positions)
        return uniform(view.seed, ANY_TOKEN, positions).numpy()
