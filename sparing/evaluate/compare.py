"""Two evaluations of the same problems: B minus A, problem by problem."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparing.errors import OptionError, reason
from sparing.evaluate.statistics import paired_bootstrap

Row = Mapping[str, Any]
Rows = Mapping[tuple[str, Any], Row]
SAME = ("question", "reference")  # what must not differ in a pair


def compare(a: Path, b: Path) -> dict[str, Any]:
    """The difference in accuracy over all pairs, and task by task.

    Raises OptionError where a file is no result of `sparing eval`, or where their rows do not pair.
    """
    first, second = read_rows(a), read_rows(b)
    check_pairs(a, first, b, second)
    pairs = [(row, second[name]) for name, row in first.items()]
    tasks = dict.fromkeys(row["task"] for row, _ in pairs)
    return {
        **difference(pairs),
        "tasks": {t: difference([pair for pair in pairs if pair[0]["task"] == t]) for t in tasks},
        "a": str(a),
        "b": str(b),
    }


def difference(pairs: Sequence[tuple[Row, Row]]) -> dict[str, Any]:
    """B minus A with its paired bootstrap interval; ``only_a``: solved by A and not by B."""
    n = len(pairs)
    solved = [(bool(a["correct"]), bool(b["correct"])) for a, b in pairs]
    low, high = paired_bootstrap([b - a for a, b in solved])
    return {
        "difference": sum(b - a for a, b in solved) / n,
        "low": low,
        "high": high,
        "n": n,
        "accuracy_a": sum(a for a, _ in solved) / n,
        "accuracy_b": sum(b for _, b in solved) / n,
        "only_a": solved.count((True, False)),
        "only_b": solved.count((False, True)),
    }


def read_rows(path: Path) -> Rows:
    """The rows of a result by task and id."""
    try:
        rows = json.loads(path.read_text())["rows"]
        found = {(row["task"], row["id"]): row for row in rows}
        complete = all(isinstance(row["correct"], bool) and "question" in row for row in rows)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise not_a_result(path, reason(error)) from None
    if not found or not complete or len(found) < len(rows):
        raise not_a_result(path, "rows that are missing, incomplete or there twice")
    return found


def not_a_result(path: Path, got: str) -> OptionError:
    return OptionError(f"{path} must be the --json of a finished `sparing eval`, got: {got}")


def check_pairs(a: Path, first: Rows, b: Path, second: Rows) -> None:
    """Raise OptionError, naming the first row at fault, unless all rows pair."""
    rule = "rows must pair by task and id"
    for one, rows, other, others in ((a, first, b, second), (b, second, a, first)):
        for task, id_ in rows:
            if (task, id_) not in others:
                raise OptionError(
                    f"{rule}, got {task} {id_} in {one} ({len(rows)} rows) and not in {other} "
                    f"({len(others)}); evaluate both with the same --task, --n and --seed"
                )
    for name, row in first.items():
        for field in SAME:
            if row.get(field) != second[name].get(field):
                raise OptionError(
                    f"{rule}, got another {field} for {name[0]} {name[1]} in {a} than in {b}; "
                    "evaluate both with the same --seed and the same data"
                )
