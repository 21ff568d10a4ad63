"""leg_counting: a labelled product for each animal, then their sum, the last one first."""

from random import Random
from string import ascii_uppercase
from typing import Any

from reasoning_gym.arithmetic.leg_counting import ANIMALS

from sparing.pocket.traces.arithmetic import add, multiply
from sparing.pocket.traces.trace import Trace


def write(entry: dict[str, Any], rng: Random) -> Trace:
    trace = Trace()
    results = []
    for label, (animal, count) in zip(
        ascii_uppercase, entry["metadata"]["animals"].items(), strict=False
    ):
        legs = ANIMALS[animal]
        trace.say(f"{count} {animal}{'s' if count > 1 else ''}: {legs} legs each, ")
        product = multiply(trace, count, legs, rng)
        if count < 10 and legs:
            trace.say(f". check {' '.join(str(legs * i) for i in range(1, count + 1))} ok")
        trace.say(f".\n{label}{product}\n")
        results.append((label, product))
    _add_up(trace, results, rng)
    return trace


def _add_up(trace: Trace, results: list[tuple[str, int]], rng: Random) -> None:
    """Add from the last result back to A, so that the end needs no counting."""
    label, total = results[-1]
    trace.say(f"all\n{label}{total}\n")
    for label, product in reversed(results[:-1]):
        trace.say(label)
        trace.recall(str(product))
        trace.say(", ")
        total = add(trace, total, product, rng)
        trace.say("\n")
    trace.answer = str(total)
