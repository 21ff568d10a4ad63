"""The SlotCache against a list of tokens, and what its memory does."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sparing.engine.cache import BLOCK_SLOTS, Kind, SlotCache
from sparing.options import Memory
from tests.engine.driving import greedy
from tests.tiny import engine, tiny

LAYERS, ROWS, HEADS, DIM, SCORES = 2, 3, 2, 3, 2


@dataclass
class Token:
    """What the model of a slot knows: ``content`` is unique to a token."""

    position: int
    kind: Kind
    scores: list[float]
    content: int


def measured(cache: SlotCache) -> int:
    storages = {t.untyped_storage().data_ptr(): t for t in (*cache.keys, *cache.values)}
    return sum(t.untyped_storage().nbytes() for t in storages.values())


def contents(content: int) -> torch.Tensor:
    """A token's keys (first half) and values: different in every layer, head and dimension."""
    numbers = torch.arange(2 * LAYERS * HEADS * DIM, dtype=torch.float64)
    return (content * 100 + numbers).view(2 * LAYERS, HEADS, DIM)


class Slots(RuleBasedStateMachine):
    """Rows as lists; whatever is done to the cache is done to them."""

    @initialize(capacity=st.integers(0, 40), limit=st.integers(0, 700))
    def start(self, capacity: int, limit: int) -> None:
        self.cache = SlotCache(
            LAYERS, ROWS, HEADS, DIM, capacity, max(capacity, limit), SCORES, torch.float64
        )
        self.rows: list[list[Token]] = [[] for _ in range(ROWS)]
        self.next = 1
        self.ends = [0] * ROWS  # the position after the last one

    @rule(row=st.integers(0, ROWS - 1), drafted=st.integers(1, 12), data=st.data())
    def append_and_commit(self, row: int, drafted: int, data: Any) -> None:
        """The decoder writes behind the length; a path of it stays, gaps and all."""
        row %= len(self.rows)
        begin = self.cache.lengths[row]
        drafted = min(drafted, self.cache.limit - begin)
        if drafted < 1:
            return
        self.cache.reserve(begin + drafted)
        tokens = []
        for offset in range(drafted):
            self.write(row, begin + offset, self.next)
            kind = data.draw(st.sampled_from(list(Kind)))
            each = st.floats(-1e6, 1e6, width=32)
            scores = data.draw(st.lists(each, min_size=SCORES, max_size=SCORES))
            tokens.append(Token(0, kind, scores, self.next))
            self.next += 1
        path = sorted(data.draw(st.sets(st.integers(0, drafted - 1))))
        kept = [tokens[offset] for offset in path]
        for token in kept:
            token.position = self.ends[row]
            self.ends[row] += 1
        scores = [token.scores for token in kept] if data.draw(st.booleans()) else None
        if scores is None:
            for token in kept:
                token.scores = [0.0] * SCORES
        kinds, positions = [token.kind for token in kept], [token.position for token in kept]
        self.cache.commit(row, path, positions, kinds, scores)
        self.rows[row] += kept

    @precondition(lambda self: any(self.rows))
    @rule(row=st.integers(0, ROWS - 1), data=st.data())
    def evict(self, row: int, data: Any) -> None:
        row %= len(self.rows)
        count = len(self.rows[row])
        keep = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
        gone = self.cache.evict(row, np.array(keep, bool))
        pairs = list(zip(self.rows[row], keep, strict=True))
        assert gone == [token.position for token, stays in pairs if not stays]
        self.rows[row] = [token for token, stays in pairs if stays]

    @rule(row=st.integers(0, ROWS - 1))
    def reset(self, row: int) -> None:
        row %= len(self.rows)
        self.cache.reset(row)
        self.rows[row], self.ends[row] = [], 0
        assert not any(t[row].any() for t in (*self.cache.keys, *self.cache.values))

    @rule(slots=st.integers(0, 900))
    def reserve(self, slots: int) -> None:
        before = self.cache.capacity
        if slots > self.cache.limit:
            with pytest.raises(ValueError, match=f"at most {self.cache.limit}, got {slots}"):
                self.cache.reserve(slots)
            assert self.cache.capacity == before
        else:
            self.cache.reserve(slots)
            assert slots <= self.cache.capacity < max(before + 1, slots + BLOCK_SLOTS)
            assert self.cache.capacity <= self.cache.limit

    @rule(rows=st.integers(1, ROWS + 2), limit=st.integers(0, 700), data=st.data())
    def resize(self, rows: int, limit: int, data: Any) -> None:
        """Some rows stay, in another order; what does not fit is refused and changes nothing."""
        order = data.draw(st.permutations(range(len(self.rows))))
        keep = order[: data.draw(st.integers(0, len(order)))]
        used = max((len(self.rows[row]) for row in keep), default=0)
        if len(keep) > rows or used > limit:
            with pytest.raises(ValueError, match=f"must fit into {rows} rows of {limit} slots"):
                self.cache.resize(rows, limit, keep)
            return
        self.cache.resize(rows, limit, keep)
        new = range(rows - len(keep))
        self.rows = [self.rows[row] for row in keep] + [[] for _ in new]
        self.ends = [self.ends[row] for row in keep] + [0 for _ in new]
        assert used <= self.cache.capacity < used + BLOCK_SLOTS
        assert self.cache.capacity <= self.cache.limit == limit
        free = [t[len(keep) :] for t in (*self.cache.keys, *self.cache.values)]
        assert not any(values.any() for values in free)

    @invariant()
    def holds_what_the_lists_hold(self) -> None:
        if not hasattr(self, "cache"):
            return
        self.cache.check()
        assert self.cache.nbytes == measured(self.cache)
        assert self.cache.slot_bytes == 2 * LAYERS * HEADS * DIM * 8
        assert self.cache.nbytes == len(self.rows) * self.cache.capacity * self.cache.slot_bytes
        assert self.cache.lengths == [len(tokens) for tokens in self.rows]
        for row, tokens in enumerate(self.rows):
            used = slice(0, len(tokens))
            assert self.cache.positions[row, used].tolist() == [t.position for t in tokens]
            assert self.cache.kinds[row, used].tolist() == [t.kind for t in tokens]
            assert self.cache.scores[row, used].tolist() == [t.scores for t in tokens]
            if tokens:
                expected = torch.stack([contents(token.content) for token in tokens], dim=2)
                found = torch.stack(
                    [t[row, :, used] for t in (*self.cache.keys, *self.cache.values)]
                )
                assert torch.equal(found, expected)

    def write(self, row: int, slot: int, content: int) -> None:
        tensors = (*self.cache.keys, *self.cache.values)
        for tensor, values in zip(tensors, contents(content), strict=True):
            tensor[row, :, slot] = values


Slots.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestSlots = Slots.TestCase


def three_tokens() -> SlotCache:
    cache = SlotCache(1, 2, 1, 2, capacity=4)
    cache.commit(1, [0, 1, 2], [0, 1, 2], [Kind.PROMPT, Kind.THOUGHT, Kind.ANSWER])
    return cache


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("positions", [0, 2, 1], "positions must rise"),
        ("positions", [0, 1, 1], "positions must rise"),
        ("scores", [[0], [np.nan], [0]], "scores must be finite"),
        ("scores", [[0], [np.inf], [0]], "scores must be finite"),
        ("kinds", [0, 9, 1], "unknown kind"),
    ],
)
def test_check_finds_what_is_wrong_in_the_used_slots(name, value, complaint):
    cache = three_tokens()
    cache.check()
    getattr(cache, name)[1, :3] = value
    with pytest.raises(AssertionError, match=complaint):
        cache.check()
    cache.lengths[1] = 1
    cache.check()


@pytest.mark.parametrize("length", [-1, 5])
def test_check_finds_impossible_lengths(length):
    cache = three_tokens()
    cache.lengths[1] = length
    with pytest.raises(AssertionError):
        cache.check()


def test_with_a_budget_the_bytes_never_change():
    """One row's bytes from its events, the whole cache's from its storages, at every step."""
    model = engine(tiny())
    prompts = [[1, 2, 3], list(range(9))]
    requests = [
        model.request(p, Memory(budget=24), sampling=greedy(80), tag=tag)
        for tag, p in enumerate(prompts)
    ]
    loop = model.loop(requests)
    shape = model.decoder.shape
    assert loop.cache.nbytes == 2 * shape.layers * 2 * shape.kv_heads * 24 * shape.head_dim * 8
    addresses = [t.data_ptr() for t in loop.cache.keys]
    for request in requests:
        loop.admit(request)
    while loop.live:
        for event in loop.step():
            assert getattr(event, "kv_bytes", loop.cache.nbytes // 2) == loop.cache.nbytes // 2
        assert measured(loop.cache) == loop.cache.nbytes
        assert [t.data_ptr() for t in loop.cache.keys] == addresses
        assert loop.cache.capacity == 24


@pytest.mark.slow
def test_without_a_budget_it_grows_in_blocks():
    model = engine(tiny())
    loop = model.loop([model.request([1, 2, 3], sampling=greedy(600))])
    loop.admit(model.request([1, 2, 3], sampling=greedy(600)))
    assert loop.cache.capacity == loop.cache.nbytes == 0
    sizes = []
    while loop.live:
        sizes += [event.kv_bytes for event in loop.step() if hasattr(event, "kv_bytes")]
        assert measured(loop.cache) == loop.cache.nbytes
    slot = sizes[0] // BLOCK_SLOTS
    assert [size // slot for size in sorted(set(sizes))] == [256, 512, 603]
    assert sizes == sorted(sizes)
