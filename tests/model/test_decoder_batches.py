"""Rows of any length, in any company and any pieces, get the logits of their whole sequences.

The cached slots come from transformers, so each pass is tested by itself.
"""

from contextlib import contextmanager
from functools import cache
from unittest.mock import patch

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.model.passes import Slots, assert_close, decoder, new, oracle, random_ids
from tests.tiny import tiny

ROWS, LENGTH = 6, 60
PATHS = {
    "group of 3": tiny("qwen3"),
    "group of 1": tiny("llama", num_key_value_heads=6),
    "group of 9": tiny(
        "qwen2", hidden_size=72, num_attention_heads=9, num_key_value_heads=1, head_dim=8
    ),
}
FEW = settings(max_examples=20, deadline=None, derandomize=True)


@cache
def _sequence(path, row):
    """A row's tokens; their logits and cache in transformers."""
    ids = random_ids(LENGTH, seed=row)
    with torch.inference_mode():
        output = oracle(path)(torch.tensor([ids]), use_cache=True)
    return ids, output.logits[0], output.past_key_values


@cache
def _slots(path):
    """Every row's whole sequence; a pass overwrites what it says is not cached."""
    slots = Slots(decoder(path), ROWS, LENGTH + 4)
    for row in range(ROWS):
        slots.fill(row, _sequence(path, row)[2], LENGTH)
    return slots


@contextmanager
def threads(count):
    """A pass deals its queries out to torch's threads; transformers is better off with one."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@st.composite
def batches(draw):
    """(row, cached, new, scored) in any order, short and long beside each other."""
    rows = draw(st.lists(st.integers(0, ROWS - 1), min_size=1, unique=True))
    tokens = draw(st.sampled_from([st.just(1), st.integers(1, 4), st.integers(1, 40)]))
    batch = []
    for row in draw(st.sampled_from([rows, sorted(rows)])):
        count = draw(tokens)
        cached = draw(st.integers(0, LENGTH - count))
        batch.append((row, cached, count, draw(st.integers(0, count))))
    return batch


@pytest.fixture(params=[10**6, 1], ids=["fused", "products"])
def attention_of_many(request, monkeypatch):
    """How several rows are attended, whatever is faster."""
    monkeypatch.setattr("sparing.model.attention.MANY", request.param)


@pytest.mark.usefixtures("attention_of_many")
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_any_batch(path):
    @FEW
    @given(batches())
    @example([(0, 9, 1, 1), (1, 3, 1, 1), (2, 0, 1, 1), (4, 7, 1, 1)])  # a step of plain decoding
    @example([(1, 9, 2, 2), (2, 3, 5, 5), (3, 0, 30, 30), (4, 7, 1, 1)])  # drafts beside a prompt
    def check(batch):
        ours, slots = decoder(path), _slots(path).copy()
        inputs, truth = [], []
        for row, cached, tokens, scored in batch:
            ids, logits, _ = _sequence(path, row)
            inputs.append(new(ids[cached : cached + tokens], cached, row, scored=scored))
            truth.append(logits[cached + tokens - scored : cached + tokens])
            for layer in slots.kv:  # what lies behind is some earlier draft
                layer[:, row, :, cached:] = 5.0
        output = ours(inputs, slots)
        assert_close(output.logits, torch.cat(truth), 1e-9)
        assert len(output.hidden) == sum(tokens for _, _, tokens, _ in batch)
        for row, cached, tokens, _ in batch:
            end = cached + tokens
            for (keys, values), past in zip(
                (layer[:, row] for layer in slots.kv), _sequence(path, row)[2].layers, strict=True
            ):
                assert_close(keys[:, :end], past.keys[0, :, :end], 1e-9)
                assert_close(values[:, :end], past.values[0, :, :end], 1e-9)
                assert (keys[:, end:] == 5.0).all()
                assert (values[:, end:] == 5.0).all()

    check()


@FEW
@given(st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_a_prompt_in_chunks_of_any_size(counts):
    path = PATHS["group of 3"]
    ids, logits, _ = _sequence(path, 0)
    ours = decoder(path)
    slots, done = Slots(ours, 3), 0
    for count in counts:
        chunk = ids[done : done + count]
        if chunk:
            output = ours([new(chunk, done, row=1, scored=1)], slots)
            done += len(chunk)
            assert_close(output.logits, logits[done - 1 : done], 1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_pass_that_scores_nothing(dtype):
    path = PATHS["group of 3"]
    ours = decoder(path, dtype)
    output = ours([new([1, 2, 3], scored=0)], Slots(ours))
    assert output.logits.shape == (0, ours.shape.vocabulary)


def test_a_row_does_not_depend_on_the_others():
    path = PATHS["group of 3"]
    ours = decoder(path, "float32")
    inputs = [new(random_ids(n, seed=n), row=n) for n in (1, 4, 5)]
    together = ours(inputs, Slots(ours, ROWS)).logits.split([1, 4, 5])
    for alone, logits in zip(inputs, together, strict=True):
        assert torch.equal(ours([alone], Slots(ours, ROWS)).logits, logits)


@st.composite
def trees(draw):
    """(row, cached, parents): a draft tree by each node's parent; node 0 is the pending token."""
    rows = draw(st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=3, unique=True))
    nodes = st.integers(1, 20)
    return [
        (
            row,
            draw(st.integers(0, 30)),
            [-1] + [draw(st.integers(0, n - 1)) for n in range(1, draw(nodes))],
        )
        for row in rows
    ]


def _path_to(node, parents):
    """The nodes from the root to this one."""
    return [] if node < 0 else [*_path_to(parents[node], parents), node]


@FEW
@given(trees(), st.booleans(), st.sampled_from([10**6, 1]))
def test_a_tree_equals_each_of_its_paths_as_a_chain(batch, beside_a_chain, many):
    with patch("sparing.model.attention.MANY", many):
        check_trees(batch, beside_a_chain)


def check_trees(batch, beside_a_chain):
    path = PATHS["group of 3"]
    ours, slots, inputs, truth = decoder(path), _slots(path).copy(), [], []
    for row, cached, parents in batch:
        ids = random_ids(len(parents), seed=cached)
        paths = [_path_to(node, parents) for node in range(len(parents))]
        sees = torch.zeros(len(ids), len(ids), dtype=torch.bool)
        for node, nodes in enumerate(paths):
            sees[node, nodes] = True
        positions = [cached + len(nodes) - 1 for nodes in paths]
        tree = new(ids, cached, row, ancestors=sees)
        tree.positions = positions
        inputs.append(tree)
        truth.append(torch.stack([_last_logits(path, row, cached, ids, p) for p in paths]))
    if beside_a_chain:
        row = next(row for row in range(ROWS) if row not in {row for row, _, _ in batch})
        ids, logits, _ = _sequence(path, row)
        inputs.append(new(ids[7:12], 7, row))
        truth.append(logits[7:12])
    assert_close(ours(inputs, slots).logits, torch.cat(truth), 1e-9)


@torch.inference_mode()
def _last_logits(path, row, cached, ids, nodes):
    chain = [*_sequence(path, row)[0][:cached], *(ids[node] for node in nodes)]
    return oracle(path)(torch.tensor([chain]), use_cache=False).logits[0, -1]


@pytest.mark.parametrize(("name", "count"), [("group of 9", 2), ("group of 3", 3)])
def test_one_row_on_several_threads(name, count):
    """Where threads outnumber key heads, its queries are dealt out in as many equal parts."""
    path = PATHS[name]
    ours, (ids, logits, _) = decoder(path), _sequence(path, 0)
    tree = torch.ones(16, 16, dtype=torch.bool).tril()
    for tokens, ancestors in ((2, None), (3, None), (6, None), (16, tree)):
        chunk = new(ids[9 : 9 + tokens], 9, ancestors=ancestors)
        with threads(count):
            found = ours([chunk], _slots(path).copy()).logits
        assert_close(found, logits[9 : 9 + tokens], 1e-9)


@torch.inference_mode()
def test_vectors_stand_in_for_embeddings():
    path = PATHS["group of 3"]
    ours, theirs = decoder(path), oracle(path)
    ids = random_ids(12)
    noise = torch.Generator().manual_seed(1)
    vectors = {n: torch.randn(48, generator=noise, dtype=torch.float64) for n in (0, 3, 11)}
    embeddings = theirs.get_input_embeddings()(torch.tensor([ids])).clone()
    for offset, vector in vectors.items():
        embeddings[0, offset] = vector
    truth = theirs(inputs_embeds=embeddings, use_cache=False).logits[0]
    slots = Slots(ours, 3)
    beside = new(random_ids(5, seed=9), row=0)
    first = {offset: vector for offset, vector in vectors.items() if offset < 4}
    output = ours([beside, new(ids[:4], row=2, vectors=first)], slots)
    assert_close(output.logits[5:], truth[:4], 1e-9)
    output = ours([new(ids[4:], 4, row=2, vectors={7: vectors[11]})], slots)
    assert_close(output.logits, truth[4:], 1e-9)


@torch.inference_mode()
def test_positions_may_leave_gaps():
    """After an eviction, positions run ahead of slots."""
    path = PATHS["group of 3"]
    ours, ids = decoder(path), random_ids(20)
    positions = [*range(8), *range(500, 506), *range(507, 513)]
    causal = torch.full((20, 20), float("-inf"), dtype=torch.float64).triu(1)[None, None]
    truth = oracle(path)(
        torch.tensor([ids]),
        position_ids=torch.tensor([positions]),
        attention_mask=causal,
        use_cache=False,
    ).logits[0]
    slots, found = Slots(ours), []
    for begin, end in ((0, 10), (10, 11), (11, 20)):
        chunk = new(ids[begin:end], begin)
        chunk.positions = positions[begin:end]
        found.append(ours([chunk], slots).logits)
    assert_close(torch.cat(found), truth, 1e-9)
