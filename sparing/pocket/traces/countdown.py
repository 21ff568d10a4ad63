"""countdown with three numbers: join two, try the third on the result, go back if it fails.

A search that misses the solution through a slip reaches the end of its list and starts again, once;
then it gives up.
"""

from collections.abc import Iterator
from itertools import combinations
from math import gcd
from random import Random
from typing import Any

from sparing.pocket.traces.arithmetic import off
from sparing.pocket.traces.trace import Trace

LARGEST = 120  # larger products are not worked out: no target is that far
BIG, BROKEN = "big", "~"  # in place of such a product; of a quotient that is not whole
SEARCHES = 2  # failed searches before it gives up
PASSED_BY = 0.12  # share of searches with a slip at the solution
NONE = "none"  # the answer after giving up


def write(entry: dict[str, Any], rng: Random) -> Trace:
    numbers, target = entry["metadata"]["numbers"], entry["metadata"]["target"]
    trace = Trace(answer=NONE)
    trace.say(f"make {target}\n")
    for search in range(SEARCHES):
        if search:
            trace.say("again\n")
        found = _search(trace, numbers, target, rng if rng.random() < PASSED_BY else None)
        if found:
            trace.answer = found
            trace.say(f"so {found}={target}\n")
            return trace
    trace.say("no way\n")
    return trace


def _search(trace: Trace, numbers: list[int], target: int, slips: Random | None) -> str | None:
    """The first expression with the target as its value; ``slips`` makes the search miss all."""
    for i, j in combinations(range(3), 2):
        a, b, rest = numbers[i], numbers[j], numbers[3 - i - j]
        for first, value in _joined(a, b):
            taken = _slipped(value, rest, target, slips)
            seconds = _cancelled(a, b, rest) if taken == BIG else []
            seconds = list(_joined(taken, rest)) if isinstance(taken, int) else seconds
            head = f"{first}={taken}{',' if seconds else ''}"
            if taken == value:
                trace.say(head)
            else:
                trace.slip(head)
            for second, result in seconds:
                if result == target and slips:
                    trace.slip(f" {second}={off(target, slips)}")
                elif result == target:
                    trace.say(f" {second}={result} yes\n")
                    return _expression(first, value, second, rest)
                else:
                    trace.say(f" {second}={result}")
            trace.say(" no\n")
    return None


def _joined(a: int, b: int) -> Iterator[tuple[str, int | str]]:
    """Sum, difference, product and quotient of two numbers; ``BIG``, ``BROKEN`` are dead ends."""
    high, low = max(a, b), min(a, b)
    yield f"{a}+{b}", a + b
    yield f"{high}-{low}", high - low
    yield f"{a}*{b}", a * b if a * b <= LARGEST else BIG
    yield f"{high}/{low}", high // low if low and high % low == 0 else BROKEN


def _cancelled(a: int, b: int, c: int) -> list[tuple[str, int | str]]:
    """a * b / c for a product that is too large, if it is whole and neither a / c nor b / c is."""
    if c == 0 or a % c == 0 or b % c == 0 or a * b % c:
        return []
    common = gcd(a, c)
    left, below = a // common, c // common
    right = b // below
    steps = f"{a}/{common}={left} {c}/{common}={below} {b}/{below}={right} {left}*{right}"
    return [(steps, left * right if left * right <= LARGEST else BIG)]


def _slipped(value: int | str, rest: int, target: int, slips: Random | None) -> int | str:
    """The value; with ``slips``, half of the values that lead to the target are made wrong."""
    if slips is None or not _leads(value, rest, target):
        return value
    wrong = slips.choice((value, off(int(value), slips)))
    return value if _leads(wrong, rest, target) else wrong


def _leads(value: int | str, rest: int, target: int) -> bool:
    return isinstance(value, int) and target in (result for _, result in _joined(value, rest))


def _expression(first: str, value: int | str, second: str, rest: int) -> str:
    """The second step with the first in brackets: ``4*7=28`` and ``28+2`` give ``(4*7)+2``."""
    if value == BIG:
        return f"({first})/{rest}"
    for sign in "+-*/":
        left, found, right = second.partition(sign)
        if found:
            break
    if left == str(value):
        return f"({first}){sign}{right}"
    return f"{left}{sign}({first})"
