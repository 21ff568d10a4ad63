"""Holes in the cache while training, so that a model can do with one that has some.

As layer dropout is to skipped layers, so is this to evicted tokens. Ours, and partial to no policy:
what goes is drawn, not scored by attention or by a predictor.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparing.engine.eviction import top
from sparing.train.examples import SHOWN

SHARES = (0.1, 0.6)  # of the response that the cache has room for, drawn for each row
LOCALS = (0.05, 0.5)  # of that room, the most recent tokens, which stay
SURVIVORS = (0.4, 0.9)  # of the others at each eviction
STRETCHES = (1, 2, 4, 8)  # mean lengths, in tokens, of what goes or stays together
LEAST_ROOM = 8  # slots
TAG = 1  # of this noise: layer dropout draws from the same seeds without it
REPEATED = 3  # tokens in a row that come again later are copied from here


def holes(
    ids: Int[Tensor, "B T"], roles: Int[Tensor, "B T"], rate: float, *seed: int
) -> Float[Tensor, "B 1 T T"] | None:
    """An additive mask for a batch, from the seed alone: causal, and minus infinity where a key was
    evicted before its query came. None where no row has holes; a row has with probability ``rate``.

    A row's prompt is never evicted from. See ``last_seen`` for the rest.
    """
    rng = np.random.default_rng((*seed, TAG))
    length = ids.shape[1]
    seen = torch.full(ids.shape, length)
    for row in np.flatnonzero(rng.random(len(ids)) < rate):
        prompt = int((roles[row] != SHOWN).int().argmax())
        seen[row] = torch.from_numpy(last_seen(ids[row].cpu().numpy(), prompt, rng))
    if bool((seen == length).all()):
        return None
    at = torch.arange(length)
    visible = (at <= at[:, None]) & (at[:, None] <= seen[:, None])
    mask = torch.zeros(visible.shape).masked_fill_(~visible, float("-inf"))
    return mask[:, None].to(ids.device)


def last_seen(
    ids: Int[np.ndarray, " T"], prompt: int, rng: np.random.Generator
) -> Int[np.ndarray, " T"]:
    """Of each token, the last position that sees it, where ``engine.eviction`` has its way with a
    drawn budget.

    The scores are drawn, one for each stretch of tokens. In every other row what is copied later
    is spared: where all that a thought needs is gone, there is nothing to learn.
    """
    length = len(ids)
    seen = np.full(length, length)
    room = max(int(rng.uniform(*SHARES) * (length - prompt)), LEAST_ROOM)
    local = max(int(rng.uniform(*LOCALS) * room), 1)
    survivors = rng.uniform(*SURVIVORS)
    stretch = np.cumsum(rng.random(length) < 1 / rng.choice(STRETCHES))
    scores = rng.random(length + 1)[stretch]
    if rng.random() < 0.5:
        scores = scores + copied_later(ids)
    live = np.arange(prompt, min(prompt + room, length))
    unprotected = np.arange(room) < room - local
    while len(live) == room and live[-1] + 1 < length:
        last = live[-1]
        kept = ~unprotected | top(scores[live], unprotected, int(survivors * (room - local)))
        seen[live[~kept]] = last
        more = np.arange(last + 1, min(last + 1 + int((~kept).sum()), length))
        live = np.concatenate([live[kept], more])
    return seen


def copied_later(ids: Int[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
    """1 for tokens in a run of ``REPEATED`` that comes again later, else 0."""
    marked = np.zeros(len(ids))
    later: set[tuple[int, ...]] = set()
    for start in range(len(ids) - REPEATED, -1, -1):
        run = tuple(ids[start : start + REPEATED].tolist())
        if run in later:
            marked[start : start + REPEATED] = 1
        later.add(run)
    return marked
