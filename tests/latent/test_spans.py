"""Which words go: the least valued runs, never what must stay, and always back again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparing.latent.spans import (
    LEAST,
    LONGEST,
    Span,
    choose,
    droppable,
    find,
    packed,
    shorten,
    unpacked,
)
from sparing.train.examples import RECALL, SHOWN, TAUGHT, Encoded

TOKEN, START, END = 99, [90], [91, 92]


def test_what_may_go():
    """The thought's inside, but not what is recalled, what is only shown, or its last token."""
    ids = [1, 90, 2, 90, 3, 4, 5, 6, 7, 8, 91, 92, 9, 91, 92]
    roles = [SHOWN, SHOWN, SHOWN, *[TAUGHT] * 12]
    roles[5], roles[6] = RECALL, SHOWN
    free = droppable(ids, roles, START, END)
    assert np.flatnonzero(free).tolist() == [4, 7, 8]
    assert np.flatnonzero(droppable(ids, roles, [77], END)).tolist() == [3, 4, 7, 8]
    assert not droppable(ids[:10], roles[:10], START, END).any()
    assert find(ids, [91, 92], 11) == 13
    assert find(ids, [5, 5], 0) is None


def test_the_least_valued_runs_by_hand():
    """Ten tokens are wanted; the bar of 1 gives runs of 3 and 12, the longer one first."""
    values = np.array([5, 1, 1, 1, 5, 2, *[1] * 12, 5, 1, 5], float)
    free = np.ones(len(values), bool)
    assert choose(values, free, 10.0, 9, 2) == [Span(6, 18, 2)]
    assert choose(values, free, 13.0, 9, 2) == [Span(1, 4, 1), Span(6, 18, 2)]
    assert choose(values, free, 13.0, 9, 1) == [Span(1, 4, 1), Span(6, 18, 1)]
    assert choose(values, free, 0.0, 9, 2) == []
    free[10] = False
    assert choose(values, free, 10.0, 9, 2) == [Span(6, 10, 1), Span(11, 18, 2)]


spans_of = st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0]), min_size=1, max_size=80)


@given(spans_of, st.integers(0, 80).map(float), st.integers(1, 9), st.data())
def test_spans_keep_the_rules(values, goal, most, data):
    values = np.array(values)
    free = np.array(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    spans = choose(values, free, goal, most, 2)
    assert len(spans) <= most
    last = -1
    for span in spans:
        assert span.begin > last
        assert LEAST <= len(span) <= LONGEST
        assert 1 <= span.latents <= 2
        assert free[span.begin : span.end].all()
        last = span.end
    dropped = sum(map(len, spans))
    if spans:
        assert dropped - min(map(len, spans)) < max(goal, 1)
        worst = max(values[span.begin : span.end].max() for span in spans)
        whole = choose(values, free & (values < worst), goal, most, 2)
        assert sum(map(len, whole)) < goal or worst == values[free].min()
    assert unpacked(packed(spans, len(values))) == spans


@given(spans_of, st.integers(1, 80).map(float))
def test_shortened_by_what_the_spans_say(values, goal):
    values = np.array(values)
    spans = choose(values, np.ones(len(values), bool), goal, 20, 2)
    example = Encoded(list(range(len(values))), [TAUGHT] * len(values), "task")
    short, behind = shorten(example, spans, TOKEN, taught=False)
    gone = {at for span in spans for at in range(span.begin, span.end)}
    assert [id_ for id_ in short.ids if id_ != TOKEN] == [i for i in example.ids if i not in gone]
    assert short.ids.count(TOKEN) == sum(span.latents for span in spans)
    for id_, role in zip(short.ids, short.roles, strict=True):
        assert role == (SHOWN if id_ == TOKEN else TAUGHT)
    for span, place in zip(spans, behind, strict=True):
        assert short.ids[place - span.latents : place] == [TOKEN] * span.latents
        assert short.ids[place : place + 1] in ([span.end], [])


@pytest.mark.parametrize("numbers", [[0, 2, -1, 0, 1, -1, -1], [1, -1, 2, -1], [0, 0]])
def test_packed_spans(numbers):
    spans = unpacked(np.array(numbers, np.int8))
    assert packed(spans, len(numbers)).tolist() == numbers
