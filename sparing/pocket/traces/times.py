"""time_intervals: times of day unit by unit with borrowing, dates month by month."""

import re
from calendar import isleap, month_abbr
from datetime import date, datetime
from random import Random
from typing import Any

from sparing.pocket.traces.arithmetic import add
from sparing.pocket.traces.trace import Trace

DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]


def write(entry: dict[str, Any], rng: Random) -> Trace | None:
    """A trace; None past midnight, and for task types of no level (in the data set, answers in
    milliseconds are cut off instead of rounded)."""
    metadata = entry["metadata"]
    if metadata["task_type"] == "date":
        start, end = (
            datetime.fromisoformat(metadata[name]).date() for name in ("start_time", "end_time")
        )
        return _dates(start, end, rng)
    if metadata["task_type"] not in ("time", "time_seconds"):
        return None
    times = re.findall(r"\d\d:\d\d(?::\d\d)?", entry["question"])
    return _clock(times[0], times[1])


def _clock(start: str, end: str) -> Trace | None:
    """Subtract unit by unit, the smallest first; a unit that is too small borrows from the next."""
    trace = Trace()
    trace.say(f"{start} to {end}\n")
    if start > end:
        return None  # past midnight: reasoning-gym's answer is then negative
    parts: list[str] = []
    borrow = False
    units = list(zip("hms", start.split(":"), end.split(":"), (24, 60, 60), strict=False))
    for unit, low, high, size in reversed(units):
        trace.say(f"{unit} {high}-{low}")
        value = int(high)
        if borrow:
            value -= 1
            trace.say(f" lent {value:02d}-{low}")
        borrow = value < int(low)
        if borrow:
            value += size
            trace.say(f" borrow {value}-{low}")
        parts.insert(0, f"{value - int(low):02d}")
        trace.say(f"={parts[0]}\n")
    _check(trace, start, end, parts)
    trace.answer = ":".join(parts)
    return trace


def _check(trace: Trace, start: str, end: str, parts: list[str]) -> None:
    """Add start and duration unit by unit: each sum is the end's unit, or that plus a full unit."""
    trace.say("check")
    for low, part, high in zip(start.split(":"), parts, end.split(":"), strict=True):
        trace.say(f" {low}+{part}={int(low) + int(part)} for {high}")
    trace.say(" ok\n")


def _dates(start: date, end: date, rng: Random) -> Trace:
    """The rest of the first month, the months between, the days of the last."""
    trace = Trace()
    trace.say(f"{start:%Y-%m-%d} to {end:%Y-%m-%d}\n")
    if (start.year, start.month) == (end.year, end.month):
        trace.say(f"same month, {end.day}-{start.day}={end.day - start.day}\n")
        trace.answer = f"{end.day - start.day} days"
        return trace
    length = _month(trace, start.year, start.month)
    total = length - start.day
    trace.say(f"-{start.day}={total}\n")
    year, month = start.year, start.month
    while True:
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)
        last = (year, month) == (end.year, end.month)
        if last:
            trace.say(f"{year}-{month:02d} end {end.day}")
            days = end.day
        else:
            days = _month(trace, year, month)
        trace.say(", ")
        total = add(trace, total, days, rng)
        trace.say("\n")
        if last:
            break
    trace.answer = f"{total} days"
    return trace


def _month(trace: Trace, year: int, month: int) -> int:
    """A month with its length; for February also whether the year is a leap year."""
    days = DAYS[month - 1] + (month == 2 and isleap(year))
    trace.say(f"{year}-{month:02d} {month_abbr[month]} ")
    if month == 2:
        trace.say("leap " if isleap(year) else "no leap ")
    trace.say(f"{days}")
    return days
