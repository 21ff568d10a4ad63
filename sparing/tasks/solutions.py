"""Worked solutions from rows of GSM8K, MATH500 or ProsQA form: question, thinking and answer."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparing.errors import OptionError
from sparing.tasks.datasets import file_rows
from sparing.tasks.files import SUFFIXES
from sparing.tasks.forms import find_form, lower

CALCULATOR = re.compile(r"<<[^>]*>>")  # GSM8K's notes for a calculator


@dataclass(frozen=True)
class Solution:
    """A question with its thinking and its answer."""

    question: str
    thinking: str
    answer: str


def gsm8k_thinking(row: Mapping[str, Any]) -> str:
    return CALCULATOR.sub("", str(row["answer"]).rpartition("####")[0]).strip()


def prosqa_thinking(row: Mapping[str, Any]) -> str:
    steps = row["steps"]
    return "\n".join(map(str, steps)) if isinstance(steps, list) else str(steps)


THINKING: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "GSM8K": gsm8k_thinking,
    "ProsQA": prosqa_thinking,
    "MATH500": lambda row: str(row["solution"]).strip(),
}


def read_solutions(path: Path) -> list[Solution]:
    """All rows of a file; raises OptionError if its form has no worked solutions, or if it has
    fewer than two rows: one is held out."""
    if path.suffix.lower() not in SUFFIXES:
        raise OptionError(
            f"training needs pocket or a file ({', '.join(SUFFIXES)}) as its task, got {path}; "
            "give one of these"
        )
    rows = file_rows(path)
    if len(rows) < 2:
        raise OptionError(f"{path} must hold two rows or more to train on, got {len(rows)}")
    form = find_form(str(path), rows[0])
    if form.name not in THINKING:
        raise OptionError(
            f"training needs worked solutions ({', '.join(THINKING)} form), {path} has "
            f"{form.name} form without them; choose another file"
        )
    problems = [form.problem(str(path), id_, row) for id_, row in enumerate(rows, 1)]
    return [
        Solution(problem.question, THINKING[form.name](lower(row)), problem.answer)
        for problem, row in zip(problems, rows, strict=True)
    ]
