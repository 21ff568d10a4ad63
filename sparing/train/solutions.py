"""Examples for stage 1 from a file of worked solutions."""

from pathlib import Path
from random import Random
from typing import Any

from sparing.errors import OptionError
from sparing.tasks.solutions import Solution, read_solutions
from sparing.train.examples import Corpus, Example, ExampleSet, Piece, encode

HELD_OUT = 100  # rows kept for validation, or a tenth where that is less
MARKERS = ("<think>", "</think>")


def solutions_corpus(tokenizer: Any, path: Path, seed: int) -> Corpus:
    """The file's rows in an order drawn by ``seed``, the first of them held out.

    Raises OptionError where the file cannot be used or is too short to hold rows out.
    """
    solutions = read_solutions(path)
    if len(solutions) < 2:
        raise OptionError(f"{path} must hold two rows or more to train on, got {len(solutions)}")
    Random(seed).shuffle(solutions)
    held_out = min(HELD_OUT, max(1, len(solutions) // 10))
    encoded = [encode(tokenizer, example(solution, path.stem)) for solution in solutions]
    return Corpus(ExampleSet(encoded[held_out:]), ExampleSet(encoded[:held_out]))


def example(solution: Solution, task: str) -> Example:
    """The thinking between think markers, then the answer."""
    opening, closing = MARKERS
    response = f"{opening}\n{solution.thinking}\n{closing}\n\n{solution.answer}"
    message = {"role": "user", "content": solution.question}
    return Example([message], [Piece(response)], task)
