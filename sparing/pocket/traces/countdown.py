"""countdown with three numbers: join two, try the third on the result, go back where it fails.

A search that passes the solution by, through a slip, comes to the end of its list and begins again.
"""

from collections.abc import Iterator
from itertools import combinations
from random import Random
from typing import Any

from sparing.pocket.traces.arithmetic import off
from sparing.pocket.traces.trace import Trace

LARGEST = 120  # a product beyond it is not worked out: no target is that far
PASSED_BY = 0.1  # share of the searches that slip where the solution is


def write(entry: dict[str, Any], rng: Random) -> Trace | None:
    """None where the search, which leaves out large products, finds nothing."""
    numbers, target = entry["metadata"]["numbers"], entry["metadata"]["target"]
    trace = Trace()
    trace.say(f"make {target}\n")
    while rng.random() < PASSED_BY:
        _search(trace, numbers, target, slips=rng)
        trace.say("again\n")
    found = _search(trace, numbers, target)
    if found is None:
        return None
    trace.answer = found
    trace.say(f"so {found}={target}\n")
    return trace


def _search(
    trace: Trace, numbers: list[int], target: int, slips: Random | None = None
) -> str | None:
    """The first expression that gives the target; with ``slips`` each of them is passed by."""
    for i, j in combinations(range(3), 2):
        rest = numbers[3 - i - j]
        for first, value in _joined(numbers[i], numbers[j]):
            if value is None:
                trace.say(f"{first}=big no\n")
                continue
            wrong = slips.choice((value, off(value, slips))) if slips else value
            if _leads(value, rest, target) and not _leads(wrong, rest, target):
                trace.slip(f"{first}={wrong},")
                value = wrong
            else:
                trace.say(f"{first}={value},")
            for second, result in _joined(value, rest):
                if result == target and slips:
                    trace.slip(f" {second}={off(target, slips)}")
                elif result == target:
                    trace.say(f" {second}={result} yes\n")
                    return _expression(first, value, second)
                else:
                    trace.say(f" {second}={'big' if result is None else result}")
            trace.say(" no\n")
    return None


def _leads(value: int, rest: int, target: int) -> bool:
    return any(result == target for _, result in _joined(value, rest))


def _joined(a: int, b: int) -> Iterator[tuple[str, int | None]]:
    """What two numbers give: sum, difference, product (None: too large), quotient where whole."""
    high, low = max(a, b), min(a, b)
    yield f"{a}+{b}", a + b
    yield f"{high}-{low}", high - low
    yield f"{a}*{b}", a * b if a * b <= LARGEST else None
    if low and high % low == 0:
        yield f"{high}/{low}", high // low


def _expression(first: str, value: int, second: str) -> str:
    """The second step with the first in brackets: ``28+2`` of ``4*7=28`` is ``(4*7)+2``."""
    for sign in "+-*/":
        left, found, right = second.partition(sign)
        if found:
            break
    if left == str(value):
        return f"({first}){sign}{right}"
    return f"{left}{sign}({first})"
