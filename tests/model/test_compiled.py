"""A token's values are the same to the bit, whatever the pass that it is computed in.

Batch, number of new tokens, drafts and trees beside it, threads, chunks of the prompt: for weights
of several precisions, and keys and values of each. The twin in torch computes the same.
"""

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparing.engine.cache import SlotCache
from sparing.kernels.native import variants
from sparing.model.assemble import load_decoder
from sparing.model.compiled import CompiledDecoder
from sparing.model.inputs import RowInput
from sparing.model.layer_set import LayerSet
from tests.model.passes import random_ids
from tests.tiny import tiny

pytestmark = pytest.mark.skipif(not variants(), reason="no compiled kernels: no compiler was here")

WIDE = {  # blocks of 32 everywhere, heads of 16 and 24
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
MODELS = {
    "qwen3": ("qwen3", {**WIDE, "head_dim": 24, "max_position_embeddings": 4096}),
    "qwen2": ("qwen2", WIDE),
    "group of 1": ("llama", {**WIDE, "num_key_value_heads": 4, "attention_bias": True}),
    "group of 9": (
        "llama",
        {**WIDE, "hidden_size": 288, "num_attention_heads": 9, "num_key_value_heads": 1},
    ),
}
KV = {"float32": torch.float32, "float16": torch.float16, "q8": torch.int8}
FEW = settings(max_examples=15, deadline=None, derandomize=True)


@cache
def decoder(name="qwen3", weights="q4_1", threads=2, compiled=True):
    family, config = MODELS[name]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return load_decoder(tiny(family, **config), weights, compiled=compiled)
    finally:
        torch.set_num_threads(before)


def empty(of, rows=1, slots=700, kv="float16"):
    s = of.shape
    return SlotCache(s.layers, rows, s.kv_heads, s.head_dim, slots, dtype=KV[kv])


def new(ids, cached=0, row=0, **more):
    positions = more.pop("positions", list(range(cached, cached + len(ids))))
    return RowInput(row, cached, list(ids), positions, **{"scored": len(ids)} | more)


@cache
def one_by_one(name, weights, kv, length=40):
    """Hidden states and logits of a text, a token a pass."""
    ours, ids = decoder(name, weights), random_ids(length)
    slots, outputs = empty(ours, kv=kv), []
    for at, token in enumerate(ids):
        outputs.append(ours([new([token], at)], slots))
    return ids, torch.cat([o.hidden for o in outputs]), torch.cat([o.logits for o in outputs])


@pytest.mark.parametrize("kv", KV)
@pytest.mark.parametrize("weights", ["float32", "bfloat16", "float16", "q8_0", "q5_1", "q4_0"])
@pytest.mark.parametrize("name", MODELS)
def test_chunks_of_any_size(name, weights, kv):
    ids, hidden, logits = one_by_one(name, weights, kv)

    @FEW
    @given(st.lists(st.integers(1, 17), min_size=1, max_size=12))
    def check(counts):
        ours = decoder(name, weights)
        slots, done = empty(ours, kv=kv), 0
        for count in counts:
            chunk = ids[done : done + count]
            if chunk:
                output = ours([new(chunk, done)], slots)
                assert torch.equal(output.hidden, hidden[done : done + count])
                assert torch.equal(output.logits, logits[done : done + count])
                done += len(chunk)

    check()


@pytest.mark.parametrize("kv", KV)
@pytest.mark.parametrize("threads", [1, 3])
def test_any_number_of_threads(threads, kv):
    """Over spans of slots too: 600 are cached."""
    ids = random_ids(640, seed=3)
    found = []
    for ours in (decoder(threads=2), decoder(threads=threads)):
        slots = empty(ours, kv=kv)
        parts = [ours([new(ids[:600])], slots), ours([new(ids[600:601], 600)], slots)]
        parts += [ours([new(ids[601:609], 601)], slots), ours([new(ids[609:], 609)], slots)]
        found.append(torch.cat([part.logits for part in parts]))
    assert torch.equal(*found)


def test_a_long_row_one_by_one():
    """Past the first span of 256 slots a token alone and one of many take the same spans."""
    ours, ids = decoder(), random_ids(530, seed=5)
    slots, whole = empty(ours), ours([new(ids)], empty(ours)).logits
    ours([new(ids[:250])], slots)
    for at in range(250, 530):
        assert torch.equal(ours([new([ids[at]], at)], slots).logits[0], whole[at])


@FEW
@given(st.lists(st.tuples(st.integers(0, 600), st.integers(1, 20)), min_size=1, max_size=5))
def test_company_changes_nothing(rows):
    ours = decoder()
    alone, together = [], empty(ours, len(rows))
    inputs = []
    for row, (cached, count) in enumerate(rows):
        ids = random_ids(cached + count, seed=row)
        slots = empty(ours)
        if cached:
            ours([new(ids[:cached], scored=0)], slots)
            ours([new(ids[:cached], row=row, scored=0)], together)
        alone.append(ours([new(ids[cached:], cached)], slots).logits)
        inputs.append(new(ids[cached:], cached, row))
    assert torch.equal(ours(inputs, together).logits, torch.cat(alone))


@st.composite
def trees(draw):
    """How many are cached, and each node's parent; node 0 is the pending token."""
    nodes = draw(st.integers(2, 20))
    return draw(st.integers(0, 40)) + draw(st.sampled_from([0, 230])), [
        -1,
        *(draw(st.integers(0, n - 1)) for n in range(1, nodes)),
    ]


@FEW
@given(trees(), st.sampled_from(list(KV)))
def test_a_tree_is_each_of_its_paths_to_the_bit(tree, kv):
    ours, (cached, parents) = decoder(), tree
    ids = random_ids(cached + len(parents), seed=cached)
    past, drafted = ids[:cached], ids[cached:]
    paths = []
    for node, parent in enumerate(parents):
        paths.append([*(paths[parent] if parent >= 0 else []), node])
    sees = torch.zeros(len(drafted), len(drafted), dtype=torch.bool)
    for node, path in enumerate(paths):
        sees[node, path] = True
    slots = empty(ours, kv=kv)
    if cached:
        ours([new(past, scored=0)], slots)
    positions = [cached + len(path) - 1 for path in paths]
    found = ours([new(drafted, cached, ancestors=sees, positions=positions)], slots).logits
    for node, path in enumerate(paths):
        chain = empty(ours, kv=kv)
        if cached:
            ours([new(past, scored=0)], chain)
        expected = ours([new([drafted[n] for n in path], cached)], chain).logits[-1]
        assert torch.equal(found[node], expected)


def test_attention_that_is_watched_and_layers_that_are_wanted_change_nothing():
    ours, ids = decoder(), random_ids(300, seed=1)
    plain = ours([new(ids)], empty(ours))
    watched = ours([new(ids, attended=20)], empty(ours), layer=1)
    assert torch.equal(plain.logits, watched.logits)
    [attention] = watched.attention
    assert attention.shape == (20, 300)
    assert torch.allclose(attention.sum(1), torch.ones(20), atol=1e-5)


@pytest.mark.parametrize("kv", KV)
@pytest.mark.parametrize("weights", ["float32", "bfloat16", "q8_0", "q4_0"])
@pytest.mark.parametrize("name", MODELS)
def test_the_twin_computes_the_same(name, weights, kv):
    """Floats to rounding. Activations of 8 bits to a code: one at a tie falls to either side."""
    ours, twin = decoder(name, weights), decoder(name, weights, compiled=False)
    ids, found = random_ids(30, seed=2), []
    for of in (ours, twin):
        slots = empty(of, kv=kv)
        found.append(
            [of([new(ids[:20], attended=3)], slots, layer=1), of([new(ids[20:], 20)], slots)]
        )
    exact = weights in ("float32", "bfloat16") and kv == "float32"
    for a, b in zip(*found, strict=True):
        error, size = (a.logits - b.logits).abs(), b.logits.abs().max()
        assert error.max() < (1e-5 if exact else 0.05) * size
        assert error.median() < (1e-6 if exact else 0.01) * size
    a, b = found[0][0], found[1][0]
    assert torch.allclose(a.layer_hidden, b.layer_hidden, atol=1e-4 if exact else 0.3)
    assert torch.allclose(a.attention[0], b.attention[0], atol=1e-5 if exact else 0.02)


def test_layer_sets_run_what_they_name():
    ours, twin = decoder("qwen2", "float32"), decoder("qwen2", "float32", compiled=False)
    ids = random_ids(12)
    for skipped in ({0}, set()), ({1, 2}, {0}), ({0, 1, 2}, {0, 1, 2}):
        some = LayerSet.skipping(3, *skipped)
        a, b = (of([new(ids)], empty(of, kv="float32"), some).logits for of in (ours, twin))
        assert torch.allclose(a, b, atol=1e-4)


def test_positions_with_gaps_and_hidden_slots():
    """As behind an eviction, and as a replay sees it."""
    ours, twin = decoder("qwen2", "float32"), decoder("qwen2", "float32", compiled=False)
    ids, found = random_ids(30), []
    for of in (ours, twin):
        slots = empty(of, kv="float32")
        of([new(ids[:20], positions=[*range(10), *range(500, 510)])], slots)
        again = new(ids[12:20], 20, positions=list(range(502, 510)), visible=12)
        found.append(of([again], slots).logits)
    assert torch.allclose(*found, atol=1e-4)
    whole = empty(ours, kv="float32")
    first = ours([new(ids[:20], positions=[*range(10), *range(500, 510)])], whole).logits
    assert torch.equal(found[0], first[12:])


def test_it_is_what_load_gives():
    assert isinstance(decoder(), CompiledDecoder)
    assert set(decoder().types) == {"Q4_1"}
