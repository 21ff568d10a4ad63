"""N-grams: what followed a context last, as long as contexts of its size are often right."""

import pytest

from sparing import Depth, Sampling
from sparing.depth.lookup import PromptLookup
from sparing.depth.ngram_cache import Guess, NgramCache
from sparing.engine.draft import Draft
from sparing.engine.drafter import Outcome
from tests.depth.planted import planted
from tests.engine.driving import said
from tests.tiny import engine, unchecked


class Transcript:
    question = 2


class Row:
    transcript = Transcript()

    def __init__(self, tokens):
        self.tokens = tokens


def test_the_longest_context_that_was_ever_seen_decides():
    cache = NgramCache()
    cache.add([1, 2, 3, 4, 9, 3, 5], 7)
    assert cache.guess([8, 3], 1) == Guess([5], [1]), "what came last"
    assert cache.guess([8, 2, 3], 1) == Guess([4], [2])
    assert cache.guess([1, 2, 3], 2) == Guess([4, 9], [3, 4])
    assert cache.guess([7], 9) == Guess()
    assert cache.guess([1, 2, 3], 0) == Guess()


def test_only_what_is_new_is_heard():
    cache = NgramCache()
    cache.add([1, 2, 3, 4], 1)
    assert cache.guess([1], 1) == cache.guess([1, 2], 1) == Guess()
    assert cache.guess([3], 1) == Guess([4], [1])


def test_a_guess_ends_where_all_of_it_is_seldom_right():
    cache = NgramCache()
    cache.add(list(range(20)), 20)
    cache.rates[4] = 0.6
    assert len(cache.guess([0, 1, 2, 3], 16).ids) == 3, "0.6 ** 4 is under 0.15"
    cache.rates[4] = 0.99
    assert len(cache.guess([0, 1, 2, 3], 16).ids) == 16


def test_rates_follow_luck_and_come_back():
    cache = NgramCache()
    cache.add([1, 2, 1, 3], 4)
    for _ in range(200):
        cache.learn(Guess([3, 9], [1, 2]), 0)
    assert cache.rates[1] < 0.15
    assert cache.rates[2] == 0.5, "behind the mistake nothing is judged"
    assert cache.guess([5, 1], 4) == Guess(), "not worth it"
    for _ in range(400):
        if cache.guess([5, 1], 4).ids:
            break
    else:
        pytest.fail("it is never tried again")
    for _ in range(100):
        cache.learn(Guess([3], [1]), 1)
    assert cache.rates[1] > 0.8


def test_what_was_not_said_for_the_longest_time_is_forgotten():
    cache = NgramCache(most=1, capacity=3)
    cache.add([1, 2, 3, 4], 4)
    cache.add([1, 2], 2)
    cache.add([8, 9], 2)
    assert cache.guess([2], 1) == Guess()
    assert cache.guess([1], 1) == Guess([2], [1])


def test_lookup_asks_them_where_the_text_has_no_match():
    cache = NgramCache()
    lookup = PromptLookup(longest=4, cache=cache)
    one, other = Row([50, 51, 1, 2, 3, 4]), Row([50, 51, 60, 2, 3])
    assert lookup.propose([one, other], [8, 8]) == [Draft(), Draft.chain([4])]
    lookup.learn([Outcome(one, 0, 0), Outcome(other, 1, 1)], 1.0)
    assert cache.rates[2] > 0.5
    one.tokens.append(70)
    assert lookup.propose([one], [8]) == [Draft()]
    lookup.learn([Outcome(one, 0, 0)], 1.0)
    assert cache.guess([4], 1) == Guess([70], [1]), "what is new, and no prompt"
    assert cache.guess([50], 1) == Guess()
    assert PromptLookup(longest=4).propose([other], [8]) == [Draft()]


@unchecked()
def test_the_next_request_begins_with_what_was_said_before():
    model = engine(planted())
    model.drafting.forget()
    sampling = Sampling(temperature=0.8, seed=3, max_new_tokens=60, ignore_eos=True)
    asked = [list(b"so, 7 + 9 is")], None
    [plain] = model.generate(*asked, Depth(draft="off"), None, sampling)
    [first] = model.generate(*asked, Depth(draft="lookup"), None, sampling)
    [again] = model.generate(*asked, Depth(draft="lookup"), None, sampling)
    assert said(first) == said(again) == said(plain)
    assert again.stats.accepted > max(first.stats.accepted, 30)


def test_a_copy_goes_on_by_itself():
    cache = NgramCache()
    cache.add([1, 2], 2)
    other = cache.copy()
    other.add([1, 3], 2)
    other.learn(Guess([3], [1]), 0)
    assert cache.guess([1], 1) == Guess([2], [1])
    assert other.guess([1], 1) == Guess([3], [1])
    assert cache.rates[1] == 0.5 > other.rates[1]
