"""Lookup, hybrid, trees, the shortlist and the cost model, each by itself."""

from typing import get_args

import pytest
import torch

from sparing.depth.costs import Costs
from sparing.depth.find import DRAFTERS
from sparing.depth.hybrid import Hybrid
from sparing.depth.layers import tree_width
from sparing.depth.lookup import NgramIndex, PromptLookup
from sparing.depth.shortlist import Shortlist
from sparing.engine.draft import Draft
from sparing.engine.drafter import Outcome
from sparing.model.layer_set import LayerSet
from sparing.model.matrix import PlainMatrix
from sparing.options import DraftName


class Row:
    def __init__(self, tokens):
        self.tokens = tokens


def test_every_drafter_has_its_facts():
    assert set(DRAFTERS) == set(get_args(DraftName))
    assert {name for name, drafter in DRAFTERS.items() if drafter.skips_layers} == {
        "layers", "hybrid"
    }  # fmt: skip
    assert all(drafter.label for drafter in DRAFTERS.values())


def test_lookup_goes_on_as_before():
    [draft] = PromptLookup(longest=4).propose([Row([1, 2, 3, 4, 5, 9, 2, 3])], [8])
    assert draft == Draft.chain([4, 5])


def test_lookup_drafts_more_after_luck_and_passes_matches_over_after_failures():
    index = NgramIndex(4, 2, 8)
    index.learn(8, 8, 16)
    assert index.length == 16
    for _ in range(5):
        index.learn(index.length, 0, 16)
    assert index.length == 1
    assert [index.passes() for _ in range(2)] == [True, False]
    index.learn(1, 0, 16)
    assert [index.passes() for _ in range(3)] == [True, True, False]
    index.learn(1, 1, 16)
    assert not index.passes()


class Saying:
    """A drafter that says the same to each row, where there is room; what it was asked and told."""

    name = "saying"

    def __init__(self, *drafts):
        self.drafts, self.told = drafts, []

    def propose(self, rows, rooms):
        self.rooms = rooms
        return [draft.cut(room) for draft, room in zip(self.drafts, rooms, strict=True)]

    def learn(self, outcomes, seconds):
        self.told += outcomes
        return [self] * len(outcomes)


def test_hybrid_asks_layers_where_lookup_found_nothing_and_tells_whom_it_asked():
    some, none, other = Draft.chain([1, 2]), Draft(), Draft.chain([5, 6, 7])
    lookup, layers = Saying(some, none, none), Saying(other, other, none)
    hybrid, rows = Hybrid(lookup, layers), [Row([]), Row([]), Row([])]
    assert hybrid.propose(rows, [4, 9, 8]) == [some, other, none]
    assert (lookup.rooms, layers.rooms) == ([4, 9, 8], [0, 9, 8])
    outcomes = [Outcome(row, 2, at) for at, row in enumerate(rows)]
    assert hybrid.learn(outcomes, 1.0) == [lookup, layers, layers]
    assert lookup.told == outcomes[:1]
    assert layers.told == outcomes[1:]
    lookup.drafts = (none, some, none)
    assert hybrid.propose(rows, [2, 2, 2]) == [other.cut(2), some, none]
    assert layers.rooms == [2, 0, 2]
    assert hybrid.learn([Outcome(rows[1], 2, 2)], 1.0) == [lookup]


@pytest.mark.parametrize(
    ("confidence", "greedy", "sampled"),
    [(0.99, 3, 1), (0.9, 5, 3), (0.8, 8, 5), (0.6, 8, 5), (0.5, 10, 10), (0.1, 10, 10)],
)
def test_breadth_is_the_papers(confidence, greedy, sampled):
    assert tree_width(confidence, sampled=False) == greedy
    assert tree_width(confidence, sampled=True) == sampled


def test_shortlist_scores_its_words_as_the_full_head_does():
    weight = torch.randn(50, 8)
    words = Shortlist(PlainMatrix(weight), 50, size=10)
    words.use([40, 3, 41])
    assert sorted(words.ids.tolist()) == [0, 1, 2, 3, 4, 5, 6, 7, 40, 41]
    words.use(range(20, 28))
    assert sorted(words.ids.tolist()) == [3, *range(20, 28), 41], "used last stay"
    x = torch.randn(1, 8)
    torch.testing.assert_close(words.head(x), (x @ weight.T)[:, words.ids])


def test_speed_by_hand():
    """Half of 4 layers' sub-layers at 0.1 of a step each, agreement 0.5, a draft of one or two."""
    costs = Costs(rest=0.2, attention=0.1, mlp=0.1, token=0.05)
    half = LayerSet.skipping(4, {1, 2}, {1, 2})
    assert costs.draft(half) == pytest.approx(0.6)
    one = (1 + 0.5) / (0.6 + 1.05)
    two = (1 + 0.5 + 0.25) / (2 * 0.6 + 1.1)
    assert costs.speed(half, 0.5, 1) == pytest.approx(one)
    assert costs.speed(half, 0.5, 2) == pytest.approx(max(one, two))
    assert costs.speed(half, 1.0, 25) == pytest.approx(26 / (25 * 0.6 + 1 + 25 * 0.05))
