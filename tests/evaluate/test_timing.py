"""Turns."""

from sparing.evaluate.timing import alternating


def test_alternating_takes_from_each_group_as_far_as_it_goes():
    assert alternating([["a", "b", "c"], [], ["d"], ["e", "f"]]) == ["a", "d", "e", "b", "f", "c"]
