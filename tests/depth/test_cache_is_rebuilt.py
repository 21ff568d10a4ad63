"""After many random draft, accept and evict steps the cache is that of the committed tokens."""

import pytest
import torch

from sparing import Depth, Memory, Sampling
from sparing.depth.store import Tuned
from sparing.engine.cache import SlotCache
from sparing.engine.drafting import Draft
from sparing.model.inputs import RowInput
from tests.depth.planted import IDLE, planted
from tests.engine.drafters import Branching
from tests.tiny import engine, unchecked

PROMPTS = [list(b"so, 7 + 9 is"), list(b"Q")]
STEPS = 1200


class Mixed:
    """Layers, random trees, or nothing, by turns that are drawn."""

    name = "mixed"

    def __init__(self, layers, tree):
        self.layers, self.tree = layers, tree

    def propose(self, rows, rooms):
        turn = self.tree.random.random()
        if turn < 0.4:
            return self.layers.propose(rows, rooms)
        return self.tree.propose(rows, rooms) if turn < 0.8 else [Draft() for _ in rows]

    def learn(self, row, drafted, accepted):
        return ()


@pytest.mark.parametrize("trees", [False, True])
@unchecked()
def test_the_cache_equals_one_rebuilt(trees):
    model = engine(planted(max_position_embeddings=16_000))
    model.drafting.forget()
    model.drafting.sets = {"planted": Tuned(IDLE, 1.0, 2.0)}
    depth = Depth(draft="layers", confidence=0.02, max_draft=6, trees=trees)
    sampling = Sampling(temperature=0.7, seed=2, max_new_tokens=15_000, ignore_eos=True)
    memories = [Memory(budget=len(p) + 60, policy="random") for p in PROMPTS]
    requests = [
        model.request(p, m, sampling, tag)
        for tag, (p, m) in enumerate(zip(PROMPTS, memories, strict=True))
    ]
    loop = model.loop(requests, depth)
    loop.drafter = Mixed(loop.drafter, Branching([], 0.5))
    rows = [loop.admit(request) for request in requests]
    seen = [[] for _ in rows]  # evictions: positions gone, and from where on
    for _ in range(STEPS):
        for event in loop.step():
            if event.type == "evict":
                seen[event.row].append((event.positions, event.at))
    for row, evictions in zip(rows, seen, strict=True):
        assert len(evictions) > 20
        assert_same_cache(model, loop.cache, row, evictions)


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
