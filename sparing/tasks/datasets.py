"""Files and hub data sets as tasks: rows of a known form, drawn by seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from sparing.errors import OptionError, reason
from sparing.tasks.files import check_suffix, text_rows
from sparing.tasks.forms import AUTO, Fields, Form, find_form
from sparing.tasks.grading import check_maths
from sparing.tasks.problem import Problem
from sparing.tasks.splits import Split

SPLITS = ("test", "validation", "train")  # the first one of a hub data set is used
CONFIGURATIONS = ("default", "main")  # of a hub data set with several


@dataclass(frozen=True)
class RowsTask:
    """The rows of a data set; a problem's ``id`` is the number of its row, from 1."""

    name: str
    form: Form
    rows: Sequence[Problem]

    @classmethod
    def of(cls, name: str, rows: Sequence[Any], fields: Fields = AUTO) -> "RowsTask":
        """Read all rows; raises OptionError with the row and the field of the first fault."""
        if not rows:
            raise OptionError(f"{name} must hold a row or more, got none")
        form = find_form(name, rows[0], fields)
        if form.maths:
            check_maths()
        return cls(name, form, [form.problem(name, id_, row) for id_, row in enumerate(rows, 1)])

    def problems(self, n: int, seed: int, split: Split = "test") -> list[Problem]:
        """``n`` rows drawn without replacement; all rows, in file order, if there are no more."""
        return list(self.rows) if n >= len(self.rows) else Random(seed).sample(self.rows, n)

    def grade(self, problem: Problem, answer_text: str) -> bool:
        return self.form.grade(problem.answer, answer_text)


def file_rows(path: Path) -> list[Any]:
    """The rows of a .json, .jsonl, .csv or .parquet file; raises OptionError."""
    check_suffix(path)
    if not path.is_file():
        raise OptionError(f"a task file must exist, got {path}; check the path")
    if path.suffix.lower() == ".parquet":
        return load("parquet", data_files=str(path), split="train")
    return text_rows(path)


def hub_rows(name: str) -> list[Any]:
    """The rows of a hub data set ``org/name``: its test split, else validation, else train."""
    configuration = choose(name, "configuration", "get_dataset_config_names", CONFIGURATIONS)
    split = choose(name, "split", "get_dataset_split_names", SPLITS, configuration)
    return load(name, configuration, split=split)


def choose(name: str, what: str, asked: str, wanted: Sequence[str], *more: str) -> str:
    """A configuration or split of a hub data set: the first of ``wanted``, or its only one."""
    found = list(call(asked, name, *more))
    chosen = next((w for w in wanted if w in found), found[0] if len(found) == 1 else None)
    if chosen is None:
        raise OptionError(
            f"{name} must have the {what} {' or '.join(wanted)}, got {', '.join(found)}; "
            "save its rows as a .jsonl file and pass that"
        )
    return chosen


def load(name: str, *more: str, **options: str) -> list[Any]:
    return list(call("load_dataset", name, *more, **options))


def call(function: str, name: str, *more: str, **options: str) -> Any:
    """Call a function of the library `datasets`, imported only here."""
    try:
        import datasets
    except ImportError:
        raise OptionError(
            f"{options.get('data_files', name)} needs the package datasets, which is not "
            "installed; run: pip install datasets, or pass a .jsonl file"
        ) from None
    try:
        return getattr(datasets, function)(name, *more, **options)
    except Exception as error:  # the hub, the network and the reader have their own types
        raise OptionError(
            f"{options.get('data_files', name)} must be a readable data set, "
            f"got {type(error).__name__}: {reason(error)}; check the name and the network, "
            "or pass a .jsonl file"
        ) from None
