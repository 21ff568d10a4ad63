"""Layer sets to begin with and to try next, and their form as 0/1 vectors."""

import random

import numpy as np
from jaxtyping import Bool

from sparing.model.layer_set import LayerSet

Mask = Bool[np.ndarray, " M"]  # True: skipped. Attention and MLP of layer 1, of layer 2, ...


def as_layer_set(skipped: Mask) -> LayerSet:
    """The layer set of a mask; the first and the last layer always run."""
    pairs = ~skipped.reshape(-1, 2)
    return LayerSet((True, *map(bool, pairs[:, 0]), True), (True, *map(bool, pairs[:, 1]), True))


def as_mask(layer_set: LayerSet) -> Mask:
    """Inverse of ``as_layer_set``."""
    pairs = zip(layer_set.attention[1:-1], layer_set.mlp[1:-1], strict=True)
    return ~np.array(list(pairs), dtype=bool).reshape(-1)


def every_second(layers: int) -> LayerSet:
    """Attention and MLP of every second layer are skipped: the start of SWIFT's reference code."""
    skipped = set(range(1, layers - 1, 2))
    return LayerSet.skipping(layers, skipped, skipped)


def later_half(layers: int) -> LayerSet:
    """The later half of the layers is skipped: an early exit."""
    skipped = set(range(layers // 2 + 1, layers - 1))
    return LayerSet.skipping(layers, skipped, skipped)


def changed(layer_set: LayerSet, source: random.Random) -> LayerSet:
    """The set with one to three sub-layers turned over, so that its size is free."""
    skipped = as_mask(layer_set)
    count = source.choice((1, 1, 2, 3))
    turned = source.sample(range(len(skipped)), min(count, len(skipped)))
    skipped[turned] = ~skipped[turned]
    return as_layer_set(skipped)
