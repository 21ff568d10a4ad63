"""chain_sum: a running total in written arithmetic, and a check of the last digits."""

import re
from random import Random
from typing import Any

from sparing.pocket.traces.arithmetic import add, subtract
from sparing.pocket.traces.trace import Trace


def write(entry: dict[str, Any], rng: Random) -> Trace:
    terms = [
        int(sign + digits)
        for sign, digits in re.findall(r"([+-]?) ?(\d+)", entry["metadata"]["expression"])
    ]
    trace = Trace()
    total = terms[0]
    for term in terms[1:]:
        total = _step(trace, total, term, rng)
        trace.say("\n")
    _check(trace, terms, total)
    trace.answer = str(total)
    return trace


def _step(trace: Trace, total: int, term: int, rng: Random) -> int:
    """The next total; negative numbers are computed by magnitude, then get their sign back."""
    below = total + term < 0
    if total < 0 or below:
        trace.say(f"{total}{term:+d} flip ")
    if (total < 0) == (term < 0):
        size = add(trace, abs(total), abs(term), rng)
    else:
        high, low = max(abs(total), abs(term)), min(abs(total), abs(term))
        size = subtract(trace, high, low, rng)
    if below:
        trace.say(f" below, -{size}")
    return -size if below else size


def _check(trace: Trace, terms: list[int], total: int) -> None:
    """The sum of the last digits, which must end in the total's last digit."""
    ends = terms[0] % 10
    trace.say(f"check {ends}")
    for term in terms[1:]:
        ends = (ends + term) % 10
        trace.say(f" {'+' if term >= 0 else '-'}{abs(term) % 10}={ends}")
    trace.say(f" ends {total % 10} ok\n")
