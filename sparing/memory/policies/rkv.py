"""Important and not redundant: attention against similarity of keys."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from sparing.engine.eviction import SlotView
from sparing.memory.policies.policy import BuiltInPolicy
from sparing.memory.policies.snapkv import max_pool, observed

ROWS = 256  # of a similarity matrix held at once: G x ROWS x S floats


@dataclass(frozen=True)
class RKV(BuiltInPolicy):
    """R-KV (arXiv 2505.24133), uniform variant: ``score = lam * I - (1 - lam) * R``.

    ``I_j``: attention of the last ``window`` queries, max-pooled over ``kernel`` slots, averaged
    over queries, normalised to sum 1.
    ``R = softmax_j(mean_i C[i, j])``: C is the cosine similarity of keys with a zero diagonal. Each
    row i ignores its ``beta`` most recent entries above ``threshold``, so that the recent one of
    similar tokens stays.
    Both are means over all layers and heads.

    In the paper each head scores and keeps its own; that I sums to 1, as R does, is ours. Not
    checked against the paper: the defaults of ``threshold`` and ``beta``, and that pooling comes
    before the mean over queries.
    """

    lam: float = 0.1
    window: int = 8
    kernel: int = 7
    threshold: float = 0.5
    beta: int = 1
    name, label = "rkv", "R-KV"
    per_head_in_paper = True

    @property
    def watches(self) -> int:
        return self.window

    def score(self, view: SlotView) -> Float[np.ndarray, " S"]:
        importance = max_pool(observed(view), self.kernel).sum(0)
        importance /= importance.sum() or 1.0  # before any query: zeros
        redundancy = softmax(mean_similarity(view.keys, self.threshold, self.beta))
        return self.lam * importance - (1 - self.lam) * redundancy


def mean_similarity(
    keys: Sequence[Float[Tensor, "G S D"]], threshold: float, beta: int
) -> Float[np.ndarray, " S"]:
    """Similarity of each slot's keys to all others, over layers and heads."""
    layers = [column_means(layer, threshold, beta).cpu().double().numpy() for layer in keys]
    return np.mean(layers, axis=0)


def column_means(keys: Float[Tensor, "G S D"], threshold: float, beta: int) -> Float[Tensor, " S"]:
    """One layer's mean over heads and rows of the similarity, a few rows at a time."""
    unit = normalize(keys.float(), dim=-1)
    heads, slots, _ = unit.shape
    total = unit.new_zeros(slots)
    for start in range(0, slots, ROWS):
        similar = unit[:, start : start + ROWS] @ unit.mT
        similar.diagonal(start, 1, 2).zero_()
        alike = similar > threshold
        rank = alike.flip(-1).cumsum(-1, dtype=torch.int32).flip(-1)  # 1: the most recent
        total += similar.masked_fill_(alike & (rank <= beta), 0).sum((0, 1))
    return total / (heads * slots)


def softmax(values: Float[np.ndarray, " S"]) -> Float[np.ndarray, " S"]:
    powers = np.exp(values - values.max())
    return powers / powers.sum()
