"""Turns."""

from sparing.evaluate.timing import alternating, in_turns, large_read, middle, ratio


def test_alternating_takes_from_each_group_as_far_as_it_goes():
    assert alternating([["a", "b", "c"], [], ["d"], ["e", "f"]]) == ["a", "d", "e", "b", "f", "c"]


def test_arms_take_turns_and_the_first_round_is_not_counted():
    asked = []

    def arm(name, seconds):
        return lambda: asked.append(name) or [seconds * len(asked)] * 2

    found = in_turns({"a": arm("a", 1.0), "b": arm("b", 10.0)}, 2)
    assert asked == ["a", "b"] * 3
    assert found == {"a": [[3.0] * 2, [5.0] * 2], "b": [[40.0] * 2, [60.0] * 2]}
    assert middle(found["a"]) == 4.0
    assert ratio(found["b"], found["a"]) == 12.5


def test_a_large_read_reads_all(monkeypatch):
    monkeypatch.setattr("sparing.evaluate.timing.READ_BYTES", 8 * 1001)
    assert sum(large_read(2)()) == 1001
