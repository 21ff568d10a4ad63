"""Two evaluations of the same problems: B minus A, problem by problem."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparing.errors import OptionError, reason
from sparing.evaluate.statistics import paired_bootstrap

Row = Mapping[str, Any]
Rows = Mapping[tuple[str, Any], Row]
Pair = tuple[Row, Row]  # of A and of B, the same problem
SAME = ("question", "reference")  # what must not differ in a pair
COSTS = ("new_tokens", "thinking_tokens", "seconds", "kv_bytes_peak")
MODEL = ("model", "model_files", "weights", "dtype")  # what makes another model
PLACE = ("machine", "threads", "commit")  # what decides the seconds, too
UNSAID = frozenset(["questions", "thoughts"])  # follows from others; changes no figure
SHOWN = ("correct", "finish_reason", *COSTS, "evictions", "answer", "thinking")


@dataclass(frozen=True)
class Result:
    """The JSON of a finished `sparing eval`."""

    path: Path
    content: Mapping[str, Any]
    rows: Rows

    @property
    def settings(self) -> dict[str, Any]:
        """All that its figures depend on, as far as it says."""
        told = dict(self.content.get("fingerprint") or {})
        place = {name: self.content[name] for name in PLACE if name in self.content}
        return {name: value for name, value in (told | place).items() if name not in UNSAID}


def compare(a: Path, b: Path, texts: int = 0) -> dict[str, Any]:
    """The differences over all pairs and, in accuracy, task by task.

    ``settings``: those that differ, each as A has it and as B has it
    ``other_model``: whether the two are of different models
    ``costs``: means and paired differences over all problems
    ``texts``: at most this many problems that only one solved, with both answers

    Raises OptionError where a file is no result of `sparing eval`, or where their rows do not pair.
    """
    first, second, pairs = read_pairs(a, b)
    tasks = dict.fromkeys(row["task"] for row, _ in pairs)
    settings = unequal(first.settings, second.settings)
    return {
        **difference(pairs),
        "costs": {cost: cost_difference(pairs, cost) for cost in COSTS if told(pairs, cost)},
        "tasks": {t: difference([pair for pair in pairs if pair[0]["task"] == t]) for t in tasks},
        "settings": settings,
        "other_model": any(name in settings for name in MODEL),
        "texts": [apart(pair) for pair in pairs if pair[0]["correct"] != pair[1]["correct"]][
            :texts
        ],
        "a": str(a),
        "b": str(b),
    }


def read_pairs(a: Path, b: Path) -> tuple[Result, Result, list[Pair]]:
    """Two results and their rows, problem by problem."""
    first, second = read_result(a), read_result(b)
    check_pairs(a, first.rows, b, second.rows)
    return first, second, [(row, second.rows[name]) for name, row in first.rows.items()]


def unequal(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[Any]]:
    names = dict.fromkeys([*a, *b])
    return {name: [a.get(name), b.get(name)] for name in names if a.get(name) != b.get(name)}


def told(pairs: Sequence[Pair], field: str) -> bool:
    return all(field in row for pair in pairs for row in pair)


def cost_difference(pairs: Sequence[Pair], cost: str) -> dict[str, float]:
    """Means of a cost in A and in B, and B minus A with its paired bootstrap interval."""
    n = len(pairs)
    low, high = paired_bootstrap([b[cost] - a[cost] for a, b in pairs])
    mean_a, mean_b = (sum(row[cost] for row in rows) / n for rows in zip(*pairs, strict=True))
    return {"a": mean_a, "b": mean_b, "difference": mean_b - mean_a, "low": low, "high": high}


def apart(pair: Pair) -> dict[str, Any]:
    """A problem that only one solved."""
    a, b = pair
    names = ("task", "id", "question", "reference")
    return {name: a.get(name) for name in names} | {
        "solved": "a" if a["correct"] else "b",
        "answer_a": a.get("answer"),
        "answer_b": b.get("answer"),
    }


def pair_rows(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """A flat row a pair, with what is known of both."""
    names = ("task", "id", *SAME)
    return [
        {name: a.get(name) for name in names}
        | {
            f"{field}_{of}": row.get(field)
            for field in SHOWN
            if field in a or field in b
            for of, row in (("a", a), ("b", b))
        }
        for a, b in pairs
    ]


def difference(pairs: Sequence[Pair]) -> dict[str, Any]:
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


def read_result(path: Path) -> Result:
    """Raises OptionError where a file is no finished result."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = content["rows"]
        found = {(row["task"], row["id"]): row for row in rows}
        complete = all(isinstance(row["correct"], bool) and "question" in row for row in rows)
    except KeyError as error:
        raise not_a_result(path, f"no field {error}") from None
    except (OSError, ValueError, TypeError) as error:
        raise not_a_result(path, reason(error)) from None
    if not found or not complete or len(found) < len(rows):
        raise not_a_result(path, "rows that are missing, incomplete or there twice")
    return Result(path, content, found)


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
