"""Whether questions can be split, and the least number of them that can."""

import pytest

from sparing.tasks.held_out import can_be_split, is_held_out, least
from sparing.tasks.problem import Problem


def problems(*ids):
    return [Problem("t", id_, "Q", "A") for id_ in ids]


def test_every_tenth_is_held_out():
    assert [id_ for id_ in range(1, 31) if is_held_out(id_)] == [10, 20, 30]


@pytest.mark.parametrize(
    ("ids", "split"), [((), False), ((1, 2), False), ((10,), False), ((10, 3), True)]
)
def test_both_sides_need_a_question(ids, split):
    assert can_be_split(problems(*ids)) == split


@pytest.mark.parametrize(("n", "found"), [(1, 10), (4, 10), (9, 10)])
def test_the_least_number(n, found):
    assert least(lambda count: problems(*range(1, count + 1)), n) == found


def test_rows_that_run_out():
    """Seven rows are all there are; none is a tenth."""
    assert least(lambda count: problems(*range(1, min(count, 7) + 1)), 4) is None
