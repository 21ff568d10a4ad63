"""Pocket's training questions with their traces."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sparing.model.markers import THINK, THINK_END
from sparing.pocket.traces import countdown, legs, sums, times
from sparing.pocket.traces.trace import Trace
from sparing.tasks.families import FAMILIES, PRACTICE, STANDARD, TRAINED
from sparing.tasks.gym import entries
from sparing.tasks.splits import QuestionSet, Split
from sparing.tasks.wording import key, wording
from sparing.train.examples import Example, Piece

Writer = Callable[[dict[str, Any], random.Random], Trace | None]
WRITERS: dict[str, Writer] = {
    "legs": legs.write,
    "countdown": countdown.write,
    "sums": sums.write,
    "times": times.write,
}
# Questions of each family and level in one epoch of about 25 million tokens.
COUNTS = {
    "legs": {STANDARD: 12_000, PRACTICE: 4_000},
    "countdown": {STANDARD: 16_000, PRACTICE: 16_000},
    "sums": {STANDARD: 12_000, PRACTICE: 4_000},
    "times": {STANDARD: 20_000, PRACTICE: 5_000},
}
DIRECT = 0.05  # share of examples with an empty thought, for --no-think


@dataclass(frozen=True)
class Question:
    """An example and the key of its question."""

    example: Example
    key: str


def questions(
    split: Split,
    seed: int,
    counts: dict[str, dict[str, int]] = COUNTS,
    asked: QuestionSet | None = None,
) -> Iterator[Question]:
    """Questions of every family and level in turn, the same for the same seed.

    ``asked``: training questions, left out of the other splits
    """
    asked = QuestionSet() if split == "train" else asked
    for family, count in counts.items():
        for level in TRAINED:
            yield from _level(family, level, split, seed, count.get(level, 0), asked)


def _level(
    family: str, level: str, split: Split, seed: int, n: int, asked: QuestionSet | None
) -> Iterator[Question]:
    dataset, config = FAMILIES[family].dataset, FAMILIES[family].config(level)
    task = family if level == STANDARD else f"{family}-{level}"
    for at, entry in enumerate(entries(dataset, config, split, seed, n, asked)):
        rng = random.Random(f"{seed}:{task}:{at}")
        trace = WRITERS[family](entry, rng)
        if trace is None:
            continue
        direct = split in ("train", "traces") and rng.random() < DIRECT
        pieces = _direct(trace) if direct else trace.response()
        message = {"role": "user", "content": wording(dataset, entry)}
        yield Question(Example([message], pieces, task), key(dataset, entry))


def _direct(trace: Trace) -> list[Piece]:
    """The answer after an empty thought, as the chat template writes it without thinking."""
    return [Piece(f"{THINK}\n\n{THINK_END}\n\n", taught=False), Piece(trace.answer)]
