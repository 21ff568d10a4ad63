"""countdown with three numbers: join two, try the third on the result, go back where it fails."""

from collections.abc import Iterator
from itertools import combinations
from random import Random
from typing import Any

from sparing.pocket.traces.trace import Trace

LARGEST = 120  # a product beyond it is not worked out: no target is that far


def write(entry: dict[str, Any], rng: Random) -> Trace | None:
    """None where the search, which leaves out large products, finds nothing."""
    numbers, target = entry["metadata"]["numbers"], entry["metadata"]["target"]
    trace = Trace()
    trace.say(f"make {target}\n")
    for i, j in combinations(range(3), 2):
        rest = numbers[3 - i - j]
        for first, value in _joined(numbers[i], numbers[j]):
            trace.say(f"{first}={_shown(value)}")
            if value is None:
                trace.say(" no\n")
                continue
            trace.say(",")
            for second, result in _joined(value, rest):
                trace.say(f" {second}={_shown(result)}")
                if result == target:
                    trace.answer = _expression(first, value, second)
                    trace.say(f" yes\nso {trace.answer}={target}\n")
                    return trace
            trace.say(" no\n")
    return None


def _joined(a: int, b: int) -> Iterator[tuple[str, int | None]]:
    """What two numbers give: sum, difference, product (None: too large), quotient where whole."""
    high, low = max(a, b), min(a, b)
    yield f"{a}+{b}", a + b
    yield f"{high}-{low}", high - low
    yield f"{a}*{b}", a * b if a * b <= LARGEST else None
    if low and high % low == 0:
        yield f"{high}/{low}", high // low


def _shown(value: int | None) -> str:
    return "big" if value is None else str(value)


def _expression(first: str, value: int, second: str) -> str:
    """The second step with the first in brackets: ``28+2`` of ``4*7=28`` is ``(4*7)+2``."""
    for sign in "+-*/":
        left, found, right = second.partition(sign)
        if found:
            break
    if left == str(value):
        return f"({first}){sign}{right}"
    return f"{left}{sign}({first})"
