"""The guard settles on what is fastest, whatever is fastest, and asks again only now and then."""

import pytest

from sparing.depth.auto import LOST, TRIAL, AutoDrafter, Record
from sparing.engine.drafting import Draft, NoDrafter
from sparing.model.layer_set import LayerSet


class Clock:
    """Time that passes when a drafter is asked."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(guard.time, "perf_counter", lambda: self.now)


class Paced(NoDrafter):
    """A step with it takes ``seconds`` and brings ``tokens``."""

    def __init__(self, name, clock, seconds, tokens):
        self.name, self.clock, self.seconds, self.tokens = name, clock, seconds, tokens
        self.asked = 0

    def propose(self, rows, rooms):
        self.asked += 1
        self.clock.now += self.seconds
        return [Draft() for _ in rows]


class Row:
    reading = False


def drive(guard_, steps, rows=1):
    for _ in range(steps):
        guard_.propose([Row()] * rows, [9] * rows)
        for _ in range(rows):
            guard_.learn(Row(), 0, guard_._asked.tokens - 1)
        guard_.clock.now += 100.0  # a reader who takes his time


@pytest.mark.parametrize("fastest", ["off", "lookup", "layers"])
@pytest.mark.parametrize("rows", [1, 8])
def test_settles_on_the_fastest(fastest, rows, monkeypatch):
    clock = Clock(monkeypatch)
    drafters = [
        Paced(name, clock, 1.0, 3 if name == fastest else 2) for name in ("off", "lookup", "layers")
    ]
    record = Record()
    guard_ = AutoDrafter(record, drafters)
    guard_.clock = clock
    drive(guard_, 500, rows)
    asked = {drafter.name: drafter.asked for drafter in drafters}
    assert asked[fastest] > 440
    again = AutoDrafter(record, drafters)
    again.clock = clock
    drive(again, 40, rows)
    assert sum(d.asked for d in drafters if d.name != fastest) - (500 - asked[fastest]) <= 8


def test_changes_its_mind_where_the_fastest_slows_down(monkeypatch):
    clock = Clock(monkeypatch)
    one, other = Paced("off", clock, 1.0, 1), Paced("lookup", clock, 1.0, 2)
    guard_ = AutoDrafter(Record(), [one, other])
    guard_.clock = clock
    drive(guard_, 200)
    assert guard_._asked is other
    other.seconds = 5.0
    drive(guard_, 200)
    assert guard_._asked is one


def test_a_loser_that_becomes_the_fastest_is_found_some_requests_later(monkeypatch):
    clock = Clock(monkeypatch)
    plain, other = Paced("off", clock, 1.0, 1), Paced("lookup", clock, 2.0, 1)
    record = Record()
    guard_ = AutoDrafter(record, [plain, other])
    guard_.clock = clock
    drive(guard_, 2000)
    other.tokens = 6
    for _ in range(10):
        again = AutoDrafter(record, [plain, other])
        again.clock = clock
        drive(again, 100)
    assert again._asked is other


def test_a_loser_costs_little(monkeypatch):
    clock = Clock(monkeypatch)
    plain, slow = Paced("off", clock, 1.0, 1), Paced("lookup", clock, 2.0, 1)
    guard_ = AutoDrafter(Record(), [plain, slow])
    guard_.clock = clock
    drive(guard_, 4000)
    seconds, tokens = plain.asked + 2.0 * slow.asked, plain.asked + slow.asked
    assert slow.asked >= 8
    assert seconds / tokens - 1 < 1.2 * LOST


def test_numbers_of_rows_that_are_seldom_there_are_not_tried_out_each_time(monkeypatch):
    """A trial is due by the time with as many rows: where a hundred steps pass with eight rows for
    every five with two, what is slow is tried as often among a hundred steps of either."""
    clock = Clock(monkeypatch)
    plain, slow = Paced("off", clock, 1.0, 1), Paced("layers", clock, 2.0, 1)
    guard_ = AutoDrafter(Record(), [plain, slow])
    guard_.clock = clock
    drive(guard_, 500, 2)
    before = slow.asked
    for _ in range(100):
        drive(guard_, 100, 8)
    tried = slow.asked - before
    for _ in range(100):
        drive(guard_, 100, 8)
        drive(guard_, 5, 2)
    assert slow.asked - before - 2 * tried <= 2 * TRIAL


def test_what_was_seen_in_earlier_trials_counts_in_the_next(monkeypatch):
    """A drafter that gains now and then much, and seldom anything in four steps."""
    clock = Clock(monkeypatch)
    plain = Paced("off", clock, 1.0, 2)
    lucky = Paced("lookup", clock, 1.0, 1)
    guard_ = AutoDrafter(Record(), [plain, lucky])
    guard_.clock = clock
    for step in range(3000):
        lucky.tokens = 20 if step % 10 == 0 else 1
        drive(guard_, 1)
    assert lucky.asked > plain.asked


SETS = [LayerSet.skipping(6, {layer}, set()) for layer in (1, 2, 3, 4)]


class Search:
    """What a guard sees of a search."""

    layer_set = None


def guarded(monkeypatch, **layers):
    """Plain decoding, a token a second, and drafters that skip layers, with their ``(seconds,
    tokens)``."""
    clock = Clock(monkeypatch)
    drafters = [Paced(name, clock, *pace) for name, pace in layers.items()]
    found = AutoDrafter(Record(), [Paced("off", clock, 1.0, 1)], drafters, Search())
    found.clock = clock
    return found, *drafters


def test_layers_are_asked_as_long_as_there_is_a_set(monkeypatch):
    guard_, layers = guarded(monkeypatch, layers=(1.0, 3))
    drive(guard_, 100)
    assert layers.asked == 0
    guard_.search.layer_set = SETS[0]
    drive(guard_, 100)
    assert layers.asked > 80
    asked, guard_.search.layer_set = layers.asked, None
    drive(guard_, 100)
    assert layers.asked == asked


def test_a_set_that_changes_within_a_trial(monkeypatch):
    """What the old set brought says nothing of the new one, which gets a trial of its own."""
    guard_, layers = guarded(monkeypatch, layers=(1.0, 3))
    guard_.search.layer_set = SETS[0]
    while layers.asked < TRIAL // 2:
        drive(guard_, 1)
    layers.seconds, guard_.search.layer_set = 5.0, SETS[1]
    drive(guard_, 500)
    old, new = (guard_.record.arm("layers", layer_set, 1) for layer_set in SETS[:2])
    assert (old.steps, old.speed) == (TRIAL // 2, float("inf"))
    assert new.speed == pytest.approx(3 / 5)
    assert TRIAL <= new.steps < 2 * TRIAL
    asked, guard_.search.layer_set = layers.asked, SETS[2]
    drive(guard_, 1)
    guard_.search.layer_set = None
    drive(guard_, 100)
    assert (layers.asked, guard_._asked) == (asked + 1, guard_.plain[0]), "its trial was broken off"


def test_each_set_costs_its_first_trial_and_then_little(monkeypatch):
    guard_, *drafters = guarded(monkeypatch, layers=(2.0, 1), hybrid=(2.0, 1))
    for layer_set in SETS:
        guard_.search.layer_set = layer_set
        drive(guard_, 1000)
    lost = sum(drafter.asked for drafter in drafters)  # a second a step
    first = len(SETS) * len(drafters) * TRIAL
    assert first <= lost <= first + 1.2 * LOST * len(drafters) * guard_.record.seconds[0]
