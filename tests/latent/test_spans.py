"""Which words go: the least valued runs, never what must stay, and always back again."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sparing.latent.spans import (
    LEAST,
    Span,
    bar_for,
    choose,
    droppable,
    find,
    shorten,
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


def test_the_longest_runs_by_hand():
    """Runs of 3 and 12 are gone, the longer one first, and one that is too short."""
    gone = np.array([0, 1, 1, 1, 0, 0, *[1] * 12, 0, 1, 0], bool)
    assert choose(gone, 1, 2, 6) == [Span(6, 18, 2)]
    assert choose(gone, 9, 2, 6) == [Span(1, 4, 1), Span(6, 18, 2)]
    assert choose(gone, 9, 1, 6) == [Span(1, 4, 1), Span(6, 18, 1)]
    assert choose(gone, 9, 24, 1) == [Span(1, 4, 3), Span(6, 18, 12)], "one for each"
    assert choose(np.zeros(9, bool), 9, 2, 6) == []


def test_one_bar_for_all_examples_by_hand():
    """Of 20 thought tokens 4 are wanted: those of the second example are worth the least."""
    values = [np.arange(10.0) + 10, np.arange(10.0)]
    thoughts = [np.ones(10, bool)] * 2
    bar = bar_for(values, thoughts, 0.2, 9)
    spans = [choose(t & (v <= bar), 9, 2, 6) for v, t in zip(values, thoughts, strict=True)]
    assert spans == [[], [Span(0, 4, 1)]]
    thoughts[1] = np.zeros(10, bool)
    bar = bar_for(values, thoughts, 0.2, 9)
    assert choose(values[0] <= bar, 9, 2, 6) == [Span(0, 2, 1)]
    assert bar_for(values, thoughts, 0.0, 9) == float("-inf")
    assert bar_for(values, [np.zeros(10, bool)] * 2, 0.2, 9) == float("-inf")


values_of = st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0]), min_size=1, max_size=80)
examples_of = st.lists(values_of, min_size=1, max_size=4)


@given(examples_of, st.floats(0.05, 1.0), st.integers(1, 9), st.data())
def test_spans_keep_the_rules(examples, share, most, data):
    values = [np.array(each) for each in examples]
    booleans = [st.lists(st.booleans(), min_size=len(v), max_size=len(v)) for v in values]
    thoughts = [np.array(data.draw(each)) for each in booleans]
    bar = bar_for(values, thoughts, share, most)
    inside = sum(int(thought.sum()) for thought in thoughts)

    def dropped(under):
        each = zip(values, thoughts, strict=True)
        return sum(len(span) for v, t in each for span in choose(t & (v <= under), most, 2, 6))

    for v, thought in zip(values, thoughts, strict=True):
        spans, last = choose(thought & (v <= bar), most, 2, 6), -1
        assert len(spans) <= most
        for span in spans:
            assert span.begin > last
            assert len(span) >= LEAST
            assert 1 <= span.latents <= 2
            assert thought[span.begin : span.end].all()
            assert v[span.begin : span.end].max() <= bar
            last = span.end
    under = sum(int((v[t] <= bar).sum()) for v, t in zip(values, thoughts, strict=True))
    if inside and dropped(bar) < share * inside:
        assert under >= min(2 * share, 1.0) * (inside - 1), "as high as it may be"


@given(st.lists(st.booleans(), min_size=1, max_size=80))
def test_shortened_by_what_the_spans_say(gone):
    spans = choose(np.array(gone), 20, 2, 6)
    example = Encoded(list(range(len(gone))), [TAUGHT] * len(gone), "task")
    short, behind = shorten(example, spans, TOKEN, taught=False)
    without = {at for span in spans for at in range(span.begin, span.end)}
    assert all(gone[at] for at in without)
    kept = [id_ for id_ in example.ids if id_ not in without]
    assert [id_ for id_ in short.ids if id_ != TOKEN] == kept
    assert short.ids.count(TOKEN) == sum(span.latents for span in spans)
    stood = {at for at, id_ in enumerate(short.ids) if id_ == TOKEN}
    assert short.dropped.keys() == stood, "every latent stands for some"
    for span, place in zip(spans, behind, strict=True):
        each = [short.dropped[at] for at in range(place - span.latents, place)]
        together = [word for words in each for word in words]
        assert together == example.ids[span.begin : span.end], "in order, each once"
        assert max(map(len, each)) - min(map(len, each)) <= 1
    for id_, role in zip(short.ids, short.roles, strict=True):
        assert role == (SHOWN if id_ == TOKEN else TAUGHT)
    for span, place in zip(spans, behind, strict=True):
        assert short.ids[place - span.latents : place] == [TOKEN] * span.latents
        assert short.ids[place : place + 1] in ([span.end], [])
