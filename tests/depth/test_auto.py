"""``auto`` settles on the fastest drafter, and tries the others only now and then."""

import pytest

from sparing.depth.auto import LOST, TRIAL, AutoDrafter, Record
from sparing.engine.draft import Draft
from sparing.engine.drafter import NoDrafter, Outcome
from sparing.model.layer_set import LayerSet


class Paced(NoDrafter):
    """A step with it takes ``seconds`` and brings ``tokens``."""

    def __init__(self, name, seconds, tokens):
        self.name, self.seconds, self.tokens = name, seconds, tokens
        self.asked = 0

    def propose(self, rows, rooms):
        self.asked += 1
        return [Draft() for _ in rows]


class Row:
    reading = False


def drive(auto, steps, rows=1):
    for _ in range(steps):
        auto.propose([Row()] * rows, [9] * rows)
        asked = auto._asked
        auto.learn([Outcome(Row(), 0, asked.tokens - 1)] * rows, asked.seconds)


@pytest.mark.parametrize("fastest", ["off", "lookup", "layers"])
@pytest.mark.parametrize("rows", [1, 8])
def test_settles_on_the_fastest(fastest, rows):
    drafters = [
        Paced(name, 1.0, 3 if name == fastest else 2) for name in ("off", "lookup", "layers")
    ]
    record = Record()
    auto = AutoDrafter(record, drafters)
    drive(auto, 500, rows)
    asked = {drafter.name: drafter.asked for drafter in drafters}
    assert asked[fastest] > 440
    again = AutoDrafter(record, drafters)
    drive(again, 40, rows)
    assert sum(d.asked for d in drafters if d.name != fastest) - (500 - asked[fastest]) <= 8


def test_changes_its_mind_where_the_fastest_slows_down():
    one, other = Paced("off", 1.0, 1), Paced("lookup", 1.0, 2)
    auto = AutoDrafter(Record(), [one, other])
    drive(auto, 200)
    assert auto._asked is other
    other.seconds = 5.0
    drive(auto, 200)
    assert auto._asked is one


def test_a_loser_that_becomes_the_fastest_is_found_some_requests_later():
    plain, other = Paced("off", 1.0, 1), Paced("lookup", 2.0, 1)
    record = Record()
    auto = AutoDrafter(record, [plain, other])
    drive(auto, 2000)
    other.tokens = 6
    for _ in range(10):
        again = AutoDrafter(record, [plain, other])
        drive(again, 100)
    assert again._asked is other


def test_a_loser_costs_little():
    plain, slow = Paced("off", 1.0, 1), Paced("lookup", 2.0, 1)
    auto = AutoDrafter(Record(), [plain, slow])
    drive(auto, 4000)
    seconds, tokens = plain.asked + 2.0 * slow.asked, plain.asked + slow.asked
    assert slow.asked >= 8
    assert seconds / tokens - 1 < 1.2 * LOST


@pytest.mark.slow
def test_numbers_of_rows_that_are_seldom_there_are_not_tried_out_each_time():
    """A trial is due by the time with as many rows: where a hundred steps pass with eight rows for
    every five with two, what is slow is tried as often among a hundred steps of either."""
    plain, slow = Paced("off", 1.0, 1), Paced("layers", 2.0, 1)
    auto = AutoDrafter(Record(), [plain, slow])
    drive(auto, 500, 2)
    before = slow.asked
    for _ in range(100):
        drive(auto, 100, 8)
    tried = slow.asked - before
    for _ in range(100):
        drive(auto, 100, 8)
        drive(auto, 5, 2)
    assert slow.asked - before - 2 * tried <= 2 * TRIAL


def test_what_was_seen_in_earlier_trials_counts_in_the_next():
    """A drafter that gains now and then much, and seldom anything in four steps."""
    plain = Paced("off", 1.0, 2)
    lucky = Paced("lookup", 1.0, 1)
    auto = AutoDrafter(Record(), [plain, lucky])
    for step in range(3000):
        lucky.tokens = 20 if step % 10 == 0 else 1
        drive(auto, 1)
    assert lucky.asked > plain.asked


SETS = [LayerSet.skipping(6, {layer}, set()) for layer in (1, 2, 3, 4)]


class Search:
    """What ``auto`` sees of a search."""

    layer_set = None


def guarded(**layers):
    """Plain decoding, a token a second, and drafters that skip layers, with their ``(seconds,
    tokens)``."""
    drafters = [Paced(name, *pace) for name, pace in layers.items()]
    found = AutoDrafter(Record(), [Paced("off", 1.0, 1)], drafters, Search())
    return found, *drafters


def test_layers_are_asked_as_long_as_there_is_a_set():
    auto, layers = guarded(layers=(1.0, 3))
    drive(auto, 100)
    assert layers.asked == 0
    auto.search.layer_set = SETS[0]
    drive(auto, 100)
    assert layers.asked > 80
    asked, auto.search.layer_set = layers.asked, None
    drive(auto, 100)
    assert layers.asked == asked


def test_a_set_that_changes_within_a_trial():
    """What the old set brought says nothing of the new one, which gets a trial of its own."""
    auto, layers = guarded(layers=(1.0, 3))
    auto.search.layer_set = SETS[0]
    while layers.asked < TRIAL // 2:
        drive(auto, 1)
    layers.seconds, auto.search.layer_set = 5.0, SETS[1]
    drive(auto, 500)
    old, new = (auto.record.timing("layers", layer_set, 1) for layer_set in SETS[:2])
    assert (old.steps, old.speed) == (TRIAL // 2, float("inf"))
    assert new.speed == pytest.approx(3 / 5)
    assert TRIAL <= new.steps < 2 * TRIAL
    asked, auto.search.layer_set = layers.asked, SETS[2]
    drive(auto, 1)
    auto.search.layer_set = None
    drive(auto, 100)
    assert (layers.asked, auto._asked) == (asked + 1, auto.plain[0]), "its trial was broken off"


def test_each_set_costs_its_first_trial_and_then_little():
    auto, *drafters = guarded(layers=(2.0, 1), hybrid=(2.0, 1))
    for layer_set in SETS:
        auto.search.layer_set = layer_set
        drive(auto, 1000)
    lost = sum(drafter.asked for drafter in drafters)  # a second a step
    first = len(SETS) * len(drafters) * TRIAL
    assert first <= lost <= first + 1.2 * LOST * len(drafters) * auto.record.seconds[0]
