"""After many random draft, accept and evict steps the cache is that of the committed tokens."""

from collections import Counter
from functools import cache
from itertools import accumulate

import pytest
import torch

from sparing import Depth, Memory, Sampling
from sparing.engine.cache import SlotCache
from sparing.engine.draft import PENDING, Draft
from sparing.model.inputs import RowInput
from tests.depth.planted import IDLE, WRONG, knowing, planted
from tests.engine.drafters import Branching
from tests.tiny import engine, unchecked

PROMPTS = [list(b"so, 7 + 9 is"), list(b"Q")]
MEMORIES = [
    Memory(budget=len(prompt) + 60, policy=policy)
    for prompt, policy in zip(PROMPTS, ("random", "h2o"), strict=True)
]
STEPS, COMPARED_EVERY = 600, 200
FORETOLD = 800  # tokens


def sampling(count: int) -> Sampling:
    return Sampling(temperature=0.7, seed=2, max_new_tokens=count, ignore_eos=True)


@cache
def model():
    return engine(planted(markers=None, max_position_embeddings=16_000))


@cache
def texts() -> list[list[int]]:
    """What is going to be said, so that some of what random trees propose is right."""
    depth = Depth(draft="layers", confidence=0.0)
    results = knowing(model()).generate(PROMPTS, MEMORIES, depth, None, sampling(FORETOLD))
    return [result.prompt_token_ids + result.token_ids for result in results]


class Mixed:
    """Layers, random trees, or nothing, by turns that are drawn; counts how each of them fared.

    ``gaps``: accepted paths with rejected nodes between theirs.
    """

    name = "mixed"

    def __init__(self, layers, tree):
        self.layers, self.tree = layers, tree
        self.drafted, self.accepted, self.gaps = Counter(), Counter(), Counter()

    def propose(self, rows, rooms):
        [self.turn] = self.tree.random.choices(["layers", "tree", "nothing"], [2, 2, 1])
        drafts = [Draft() for _ in rows]
        if self.turn != "nothing":
            drafts = getattr(self, self.turn).propose(rows, rooms)
        self.drafts = {row.index: draft for row, draft in zip(rows, drafts, strict=True)}
        return drafts

    def learn(self, outcomes, seconds):
        for outcome in outcomes:
            row, accepted = outcome.row, outcome.accepted
            said = row.tokens[len(row.tokens) - 1 - accepted : -1]
            [_, *path] = accumulate(said, self.drafts[row.index].child, initial=PENDING)
            self.drafted[self.turn] += outcome.drafted
            self.accepted[self.turn] += accepted
            self.gaps[self.turn] += path != list(range(accepted))
        return ()


@pytest.mark.slow
@pytest.mark.parametrize("trees", [False, True])
@pytest.mark.parametrize("layer_set", [IDLE, WRONG], ids=["idle", "wrong"])
@unchecked()
def test_the_cache_equals_one_rebuilt(layer_set, trees):
    """Where the set is a wrong one, drafts leave other keys and values than those of the model."""
    tree = Branching(texts(), 0.5)
    knowing(model(), layer_set)
    depth = Depth(draft="layers", confidence=0.02, max_draft=6, trees=trees)
    requests = [
        model().request(p, m, sampling=sampling(15_000), tag=tag)
        for tag, (p, m) in enumerate(zip(PROMPTS, MEMORIES, strict=True))
    ]
    loop = model().loop(requests, depth)
    loop.drafter = mixed = Mixed(loop.drafter, tree)
    rows = [loop.admit(request) for request in requests]
    seen = [[] for _ in rows]  # evictions: positions gone, and from where on
    for step in range(1, STEPS + 1):
        for event in loop.step():
            if event.type == "evict":
                seen[event.row].append((event.positions, event.at))
        if step % COMPARED_EVERY == 0:
            for row, evictions in zip(rows, seen, strict=True):
                assert_same_cache(model(), loop.cache, row, evictions)
    assert min(map(len, seen)) > 15
    assert mixed.gaps["tree"] > 20
    assert mixed.accepted["layers"] > 20
    assert (mixed.gaps["layers"] > 20) == trees
    rejected = mixed.drafted["layers"] - mixed.accepted["layers"]
    assert rejected > 20 or (layer_set is IDLE and not trees)


def assert_same_cache(model, cache: SlotCache, row, evictions) -> None:
    """One pass over all committed tokens, each seeing what had not been evicted before it."""
    count = row.position
    sees = torch.ones(count, count, dtype=torch.bool).tril()
    for positions, at in evictions:
        sees[at:, positions] = False
    shape = model.decoder.shape
    whole = SlotCache(shape.layers, 1, shape.kv_heads, shape.head_dim, count, dtype=torch.float64)
    tokens = [row.id_at(position) for position in range(count)]
    model.decoder([RowInput(0, 0, tokens, list(range(count)), 1, sees)], whole)
    length = cache.lengths[row.index]
    assert length > 20, "the row is still live"
    kept = cache.positions[row.index, :length]
    for ours, theirs in zip(cache.kv, whole.kv, strict=True):
        torch.testing.assert_close(ours[:, row.index, :, :length], theirs[:, 0][:, :, kept])
