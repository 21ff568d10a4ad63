"""Which questions of a run are held out: every tenth, by its id."""

from collections.abc import Callable, Sequence

from sparing.tasks.problem import Problem

HELD_OUT = 10
FURTHER = 1000  # values of n that are tried


def is_held_out(id_: int) -> bool:
    return id_ % HELD_OUT == 0


def can_be_split(problems: Sequence[Problem]) -> bool:
    """Whether some are held out and others are not."""
    return len({is_held_out(problem.id) for problem in problems}) == 2


def least(draw: Callable[[int], Sequence[Problem]], n: int) -> int | None:
    """The first number after ``n`` of which the problems can be split; None if there is none.

    ``draw``: the problems of a number
    """
    count = len(draw(n))
    for more in range(n + 1, n + FURTHER):
        found = draw(more)
        if can_be_split(found):
            return more
        if len(found) == count:  # there are no more
            return None
        count = len(found)
    return None
