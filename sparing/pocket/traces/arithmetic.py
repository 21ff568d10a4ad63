"""Written arithmetic, digit by digit: each step is easy for a small model."""

from random import Random

from sparing.pocket.traces.trace import Trace

MISTAKES = 0.03  # share of written sums with a slip and its correction


def add(trace: Trace, a: int, b: int, rng: Random) -> int:
    """``57+87: 7+7=14 5+8+1=14 so 144``; columns from the right, the carry added last."""
    return _written(trace, f"{a}+{b}:", _add_columns(a, b), a + b, rng)


def subtract(trace: Trace, a: int, b: int, rng: Random) -> int:
    """``144-87: 14-7=7 14-8-1=5 1-0-1=0 so 57``; a column too small borrows ten (a >= b >= 0)."""
    assert a >= b >= 0, "written subtraction takes the smaller from the larger"
    return _written(trace, f"{a}-{b}:", _subtract_columns(a, b), a - b, rng)


def multiply(trace: Trace, a: int, b: int, rng: Random) -> int:
    """``13*14: 10*14=140 3*14=42 140+42: ... so 182``; b is a number of legs, with known table."""
    if a < 10 or a % 10 == 0:
        trace.say(f"{a}*{b}={a * b}")
        return a * b
    tens, ones = a - a % 10, a % 10
    trace.say(f"{a}*{b}: {tens}*{b}={tens * b} {ones}*{b}={ones * b} ")
    return add(trace, tens * b, ones * b, rng)


def _written(trace: Trace, head: str, columns: list[str], result: int, rng: Random) -> int:
    trace.say(head)
    if rng.random() < MISTAKES:
        slip = rng.randrange(len(columns))
        wrong = _with_a_slip(columns[slip], rng)
        trace.say("".join(f" {c}" for c in columns[:slip]))
        trace.slip(f" {wrong}")
        trace.say(" wait, no.")
        columns = columns[slip:]
    trace.say("".join(f" {c}" for c in columns) + f" so {result}")
    return result


def _with_a_slip(column: str, rng: Random) -> str:
    left, _, right = column.rpartition("=")
    return f"{left}={off(int(right), rng)}"


def off(result: int, rng: Random) -> int:
    """A wrong result: one or ten too many or too few, never below zero."""
    wrong = result + rng.choice([-1, 1, 10 if result < 10 else -10])
    return wrong if wrong >= 0 else 1


def _add_columns(a: int, b: int) -> list[str]:
    columns, carry = [], 0
    while a or b:
        x, y = a % 10, b % 10
        total = x + y + carry
        columns.append(f"{x}+{y}{'+1' if carry else ''}={total}")
        carry, a, b = total // 10, a // 10, b // 10
    return columns or ["0+0=0"]


def _subtract_columns(a: int, b: int) -> list[str]:
    columns, borrow = [], 0
    while a or b:
        x, y = a % 10, b % 10
        lack = x - borrow < y
        columns.append(f"{x + 10 * lack}-{y}{'-1' if borrow else ''}={x + 10 * lack - borrow - y}")
        borrow, a, b = int(lack), a // 10, b // 10
    return columns or ["0-0=0"]
