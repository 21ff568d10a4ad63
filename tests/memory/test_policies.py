"""Policies against their definitions written out in loops; no draft, no other row changes them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from sparing.engine.cache import Kind
from sparing.engine.events import EvictEvent
from sparing.engine.eviction import (
    NO_TOKEN,
    AttentionRecord,
    Budget,
    EvictionPolicy,
    SlotView,
    select,
)
from sparing.engine.result import Result
from sparing.memory.find import POLICIES, find_policy
from sparing.memory.policies import rkv
from sparing.memory.policies.bottom import Bottom
from sparing.memory.policies.h2o import H2O
from sparing.memory.policies.learned import Learned
from sparing.memory.policies.rkv import RKV
from sparing.memory.policies.sepllm import SepLLM, separator_ids
from sparing.memory.policies.snapkv import SnapKV
from sparing.model.sources import find_model
from sparing.options import Depth, Memory, Sampling
from tests.engine.drafters import Knowing
from tests.engine.driving import run, said
from tests.tiny import engine, tiny, unchecked

WATCHING = [H2O(), SnapKV(), RKV(), SnapKV(3, 5), SnapKV(4, 1), RKV(0.5, 3, 5, 0.2, 2)]
SHAPES = st.tuples(st.integers(1, 30), st.integers(0, 12), st.integers(0, 2**32 - 1))


def watched(
    policy: EvictionPolicy, slots: int, queries: int, seed: int
) -> tuple[SlotView, list[list[float]]]:
    """A row whose ``queries`` last slots have attended, some of it in ties; and their attention."""
    random = np.random.default_rng(seed)
    queries = min(queries, slots)
    question = int(random.integers(1, max(slots - queries, 1) + 1))
    record = AttentionRecord(policy.watches)
    attention = []
    for seen in range(slots - queries + 1, slots + 1):
        row = random.integers(0, random.choice([3, 1000]), seen).astype(np.float64)
        row /= row.sum() or 1.0
        record.add(torch.from_numpy(row[None]))
        attention.append([*row.tolist(), *[0.0] * (slots - seen)])
    positions = np.sort(random.choice(3 * slots, slots, replace=False))
    kinds = np.array([Kind.PROMPT] * question + [Kind.THOUGHT] * (slots - question), np.int8)
    keys = [torch.from_numpy(random.standard_normal((2, slots, 4))) for _ in range(3)]
    scores = np.zeros((slots, 1), np.float32)
    return SlotView(positions, kinds, positions, scores, 0, keys, record), attention


def pooled(values: list[float], kernel: int) -> list[float]:
    """The best within so many slots."""
    reach = kernel // 2
    return [max(values[max(j - reach, 0) : j + reach + 1]) for j in range(len(values))]


def column_sums(rows: list[list[float]], slots: int) -> list[float]:
    return [sum(row[j] for row in rows) for j in range(slots)]


def likeness(keys: list, threshold: float, beta: int) -> list[float]:
    """Each slot's mean similarity, matrix by matrix, entry by entry."""
    slots, matrices = keys[0].shape[1], [head.tolist() for layer in keys for head in layer]
    found = [0.0] * slots
    for vectors in matrices:
        for i, a in enumerate(vectors):
            row = [
                0.0 if i == j else sum(x * y for x, y in zip(a, b, strict=True)) / norms
                for j, b in enumerate(vectors)
                if (norms := math.hypot(*a) * math.hypot(*b))
            ]
            for j in [j for j in range(slots) if row[j] > threshold][::-1][:beta]:
                row[j] = 0.0
            found = [f + r / slots / len(matrices) for f, r in zip(found, row, strict=True)]
    return found


@settings(max_examples=60, deadline=None)
@given(SHAPES)
def test_h2o_is_all_attention_that_a_slot_got(shape):
    view, attention = watched(H2O(), *shape)
    expected = column_sums(attention, shape[0])
    assert H2O().score(view) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(SHAPES, st.integers(1, 14), st.sampled_from([1, 3, 5, 7]))
def test_snapkv_is_the_last_queries_votes_pooled(shape, window, kernel):
    policy = SnapKV(window, kernel)
    view, attention = watched(policy, *shape)
    expected = pooled(column_sums(attention[-window:], shape[0]), kernel)
    assert policy.score(view) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    SHAPES,
    st.sampled_from([0.0, 0.1, 0.7, 1.0]),
    st.integers(1, 9),
    st.sampled_from([0.05, 0.3, 0.5, 0.8]),
    st.integers(0, 3),
)
def test_rkv_is_importance_against_redundancy(shape, lam, window, threshold, beta):
    policy = RKV(lam, window, 7, threshold, beta)
    view, attention = watched(policy, *shape)
    votes = column_sums([pooled(row, 7) for row in attention[-window:]], shape[0])
    importance = [vote / (sum(votes) or 1) for vote in votes]
    powers = [math.exp(x) for x in likeness(view.keys, threshold, beta)]
    redundancy = [power / sum(powers) for power in powers]
    expected = [lam * i - (1 - lam) * r for i, r in zip(importance, redundancy, strict=True)]
    assert policy.score(view) == pytest.approx(expected, abs=1e-6)


def test_rkv_a_few_rows_at_a_time(monkeypatch):
    view, _ = watched(RKV(), 30, 8, 0)
    whole = RKV().score(view)
    for rows in (1, 7, 29, 30):
        monkeypatch.setattr(rkv, "ROWS", rows)
        assert RKV().score(view) == pytest.approx(whole, abs=1e-7)


def test_rkv_keeps_the_last_of_what_is_said_over_and_over():
    """Slots 1, 4, 7 and 9 hold one key each layer, the others keys at right angles to all."""
    copies = [1, 4, 7, 9]
    keys = torch.eye(10)[:, :].repeat(2, 1, 1)
    keys[:, copies] = keys[:, 1:2]
    view = replace(watched(RKV(), 10, 0, 0)[0], keys=[keys, 3 * keys])
    scores = RKV(lam=0.0).score(view)
    others = np.delete(scores, copies)
    assert others == pytest.approx(others[0])
    assert scores[9] == pytest.approx(others[0])
    assert scores[7] < scores[9]
    assert scores[4] == pytest.approx(scores[1])
    assert scores[4] < scores[7]
    assert RKV(lam=0.0, beta=0).score(view)[copies] == pytest.approx(scores[1], rel=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_rkv_takes_keys_of_any_dtype(dtype):
    view, _ = watched(RKV(), 12, 5, 3)
    scores = RKV().score(replace(view, keys=[layer.to(dtype) for layer in view.keys]))
    assert scores.dtype == np.float64
    assert scores == pytest.approx(RKV().score(view), abs=1e-3)


@pytest.mark.parametrize("policy", WATCHING, ids=str)
@pytest.mark.parametrize(("slots", "queries"), [(1, 0), (1, 1), (2, 1), (9, 0), (9, 2), (40, 40)])
def test_few_slots_and_few_queries(policy, slots, queries):
    view, _ = watched(policy, slots, queries, seed=1)
    scores = policy.score(view)
    assert (scores.shape, scores.dtype) == ((slots,), np.float64)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("policy", WATCHING, ids=str)
def test_ties_go_to_the_later_slot(policy):
    """All slots alike: those before the local window go, oldest first."""
    view, _ = watched(policy, 12, 0, seed=0)
    kinds = np.array([Kind.PROMPT] * 2 + [Kind.THOUGHT] * 10, np.int8)
    record = AttentionRecord(policy.watches)
    record.add(torch.full((4, 12), 1 / 12))
    view = replace(view, kinds=kinds, attention=record, keys=[torch.zeros(2, 12, 4)])
    keep = select(policy.score(view), kinds, Budget(12, 2, 3, 2))
    assert np.flatnonzero(keep).tolist() == [0, 1, 7, 8, 9, 10, 11]


@settings(max_examples=100, deadline=None)
@given(
    last=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
    steps=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3), st.floats(0, 1)), max_size=25),
)
def test_the_record_goes_with_its_slots(last, seed, steps):
    """Passes of so many tokens and slots, then perhaps an eviction: all of it by position."""
    random, record = np.random.default_rng(seed), AttentionRecord(last)
    held: list[int] = []
    said: list[dict[int, float]] = []  # a query each: position -> attention
    next_position = 0
    for tokens, more, share in steps:
        fresh = range(next_position, next_position + tokens + more)
        next_position = fresh.stop
        held += fresh
        attention, room = random.random((tokens, len(held))), record._sums
        record.add(torch.from_numpy(attention))
        assert record._sums is room or len(record._sums) >= 2 * len(held), "it grows by doubling"
        said += [dict(zip(held, row, strict=True)) for row in attention.tolist()]
        if share < 0.5:
            keep = random.random(len(held)) < share
            record.keep(keep)
            held = [position for position, stays in zip(held, keep, strict=True) if stays]
        by_slot = [[query.get(position, 0.0) for position in held] for query in said]
        assert record.total == pytest.approx(column_sums(by_slot, len(held)))
        assert record.recent.tolist() == by_slot[-last:]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(0, 6), st.integers(0, 2**32 - 1))
def test_sepllm_ranks_sinks_then_separators_then_the_recent(slots, sinks, seed):
    random = np.random.default_rng(seed)
    question = int(random.integers(0, slots + 1))
    positions = np.sort(random.choice(99, slots, replace=False))
    kinds = random.choice([Kind.THOUGHT, Kind.LATENT, Kind.ANSWER], slots).astype(np.int8)
    kinds[:question] = Kind.PROMPT
    ids = np.where(kinds == Kind.LATENT, NO_TOKEN, random.integers(0, 8, slots))
    view = SlotView(positions, kinds, ids, np.zeros((slots, 1), np.float32), 0)
    scores = SepLLM(frozenset({2, 5}), sinks).score(view)

    def rank(slot: int) -> tuple[bool, bool, int]:
        sink = question <= slot < question + sinks
        return sink, not sink and ids[slot] in (2, 5), slot

    assert sorted(range(slots), key=lambda slot: scores[slot]) == sorted(range(slots), key=rank)


@settings(max_examples=60, deadline=None)
@given(
    st.sets(st.integers(0, 60), min_size=1, max_size=5),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
)
def test_learned_takes_the_score_of_a_slots_age(horizons, slots, seed):
    random, rising = np.random.default_rng(seed), sorted(horizons)
    positions = np.sort(random.choice(3 * slots, slots, replace=False))
    scores = random.standard_normal((slots, len(rising))).astype(np.float32)
    view = SlotView(positions, np.full(slots, Kind.THOUGHT), positions, scores, 0)
    expected = []
    for position, of_slot in zip(positions, scores, strict=True):
        reached = [h for h in rising if h <= positions[-1] - position]
        expected.append(of_slot[rising.index(max(reached, default=rising[0]))])
    assert Learned(tuple(rising)).score(view).tolist() == expected
    assert Bottom(tuple(rising)).score(view).tolist() == [-score for score in expected]


def test_separators_of_pocket():
    fast = AutoTokenizer.from_pretrained(find_model("pocket"))
    text = "Well, 1 + 2 = 3; so:\t6.\nNo? Yes!"
    tokens = fast.encode(text, add_special_tokens=False)
    separators = separator_ids(fast)
    assert "".join(fast.decode([t]) for t in tokens if t in separators).replace(" ", "") == (
        ",;:\t.\n?!"
    )
    assert all(set(fast.decode([t])) <= set(".,?!;:\t\n\r ") for t in separators)
    assert NO_TOKEN not in separators


class Counted:
    """A vocabulary of pieces that counts how often it is decoded."""

    def __init__(self, *pieces: str) -> None:
        self.pieces, self.decoded = pieces, 0

    def get_vocab(self) -> dict[str, int]:
        return {f"piece {at}": at for at in range(len(self.pieces))}

    def batch_decode(self, ids: list[list[int]], **_: object) -> list[str]:
        self.decoded += 1
        return [self.pieces[at] for [at] in ids]


def test_separators_with_spaces_around_and_once_a_tokenizer():
    counted = Counted("", " ", ". ", " .", "..", " \n", "\n\n", "\t", "\r\n", "x.", ".\n", "  ?")
    assert separator_ids(counted) == {2, 3, 5, 6, 7, 8, 11}
    assert separator_ids(counted) is separator_ids(counted)
    assert counted.decoded == 1
    assert separator_ids(Counted(".")) == {0}


@pytest.mark.parametrize("name", POLICIES)
def test_a_vocabulary_is_decoded_for_sepllm_alone(name):
    counted = Counted("a", ".")
    policy = find_policy(Memory(budget=9, policy=name), counted, horizons=(0,))
    assert policy is not None
    assert policy.name == name
    assert counted.decoded == (name == "sepllm")


PROMPTS = [list(b"Q"), list(b"so, 7 + 9 is"), list(b"abcabcab")]
NAMES = ["h2o", "snapkv", "rkv", "sepllm", "window", "streaming", "random"]


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("policy", NAMES)
@unchecked()
def test_neither_drafts_nor_other_rows_change_what_is_kept(policy, temperature):
    """The smallest budget is reached before SnapKV has seen a whole window."""
    model = engine(tiny(markers=None, num_hidden_layers=2))
    sampling = Sampling(temperature=temperature, seed=7, max_new_tokens=90, ignore_eos=True)
    memories = [
        Memory(budget=len(prompt) + room, local=room // 3, policy=policy)
        for prompt, room in zip(PROMPTS, (12, 18, 30), strict=True)
    ]

    def generate(draft: str, rows: int) -> list[Result]:
        depth = Depth(draft=draft)
        return model.generate(PROMPTS, memories, depth, sampling=sampling, batch_size=rows)

    alone = generate("off", 1)
    for result in alone:
        assert result.stats.evictions >= 2
        assert result.stats.new_tokens == 90
    texts = [result.prompt_token_ids + result.token_ids for result in alone]
    right = Knowing(texts, right=0.9)  # most of what is drafted is accepted, unlike by lookup
    drafted = run(model, PROMPTS, sampling, memories, drafter=right)
    assert sum(result.stats.accepted for result in drafted) > 100
    for other in (generate("off", 3), generate("lookup", 1), generate("lookup", 3), drafted):
        assert [said(a) for a in alone] == [said(b) for b in other]


def test_no_two_policies_keep_the_same():
    """Of 50 slots 30 are thoughts before the local window, of which 12 stay."""
    model = engine(tiny(markers=None, num_hidden_layers=2))
    sampling = Sampling(temperature=1.0, seed=0, max_new_tokens=40, ignore_eos=True)
    gone = set()
    for policy in NAMES:
        memory = Memory(budget=50, local=8, selection=12, policy=policy)
        [result] = model.generate([PROMPTS[1]], memory, sampling=sampling)
        [event] = [event for event in result.events if isinstance(event, EvictEvent)]
        assert len(event.positions) == 30 - 12
        gone.add(tuple(event.positions))
    assert len(gone) == len(NAMES)
