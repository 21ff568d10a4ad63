"""Cache dropout (ours): training with evicted tokens, so that the model tolerates eviction.

It is for evictions what layer dropout is for skipped layers. It favours no policy: the evicted
tokens are random, not chosen by attention or by a predictor.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparing.engine.eviction import top
from sparing.train.examples import SHOWN

SHARES = (0.1, 0.6)  # range of the cache's room, as a share of the response
LOCALS = (0.05, 0.5)  # range of the protected recent tokens, as a share of the room
SURVIVORS = (0.4, 0.9)  # range of the kept share of the other tokens at an eviction
STRETCHES = (1, 2, 4, 8)  # mean lengths, in tokens, of stretches kept or evicted together
LEAST_ROOM = 8  # slots
TAG = 1  # separates this noise from layer dropout's, which has the same seeds
REPEATED = 3  # a run of this many tokens that occurs again later counts as copied


def holes(
    ids: Int[Tensor, "B T"], roles: Int[Tensor, "B T"], rate: float, *seed: int
) -> Float[Tensor, "B 1 T T"] | None:
    """An additive mask for a batch: causal, with minus infinity for keys evicted before the query.

    A row has holes with probability ``rate``; the result is None if no row has. The mask depends
    only on the seed. A row's prompt is never evicted; see ``last_seen`` for the rest.
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
    """The last position that sees each token, under the rule of ``engine.eviction`` and a random
    budget.

    The scores are random, one for each stretch of tokens. With probability 1/2 tokens copied later
    are spared: nothing can be learned from a thought without its facts.
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
    """1 for tokens in a run of ``REPEATED`` that occurs again later, else 0."""
    marked = np.zeros(len(ids))
    later: set[tuple[int, ...]] = set()
    for start in range(len(ids) - REPEATED, -1, -1):
        run = tuple(ids[start : start + REPEATED].tolist())
        if run in later:
            marked[start : start + REPEATED] = 1
        later.add(run)
    return marked
