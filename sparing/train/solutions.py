"""Examples for stage 1 from a file of worked solutions."""

from collections.abc import Sequence
from random import Random
from typing import Any

from sparing.model.markers import THINK, THINK_END
from sparing.tasks.solutions import Solution
from sparing.train.examples import Corpus, Example, ExampleSet, Piece, encode

HELD_OUT = 100  # rows for validation, at most a tenth


def solutions_corpus(tokenizer: Any, solutions: Sequence[Solution], task: str, seed: int) -> Corpus:
    """Shuffle two or more solutions by ``seed`` and hold out the first for validation."""
    shuffled = list(solutions)
    Random(seed).shuffle(shuffled)
    held_out = min(HELD_OUT, max(1, len(shuffled) // 10))
    encoded = [encode(tokenizer, example(solution, task)) for solution in shuffled]
    return Corpus(ExampleSet(encoded[held_out:]), ExampleSet(encoded[:held_out]))


def example(solution: Solution, task: str) -> Example:
    """An example with the thinking between think markers, then the answer."""
    response = f"{THINK}\n{solution.thinking}\n{THINK_END}\n\n{solution.answer}"
    message = {"role": "user", "content": solution.question}
    return Example([message], [Piece(response)], task)
