"""How many problems a model solves, and what each one costs in words, seconds and memory."""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from types import TracebackType
from typing import Any

from rich.progress import Progress

from sparing import __version__
from sparing.api import Engine
from sparing.evaluate.batch_generate import FinishedRow, Settings, answers
from sparing.evaluate.partial_results import PartialResults
from sparing.evaluate.report import origin
from sparing.evaluate.statistics import wilson
from sparing.tasks.problem import Problem, Task

COSTS = ("thinking_tokens", "new_tokens", "seconds", "kv_bytes_peak")


@dataclass(frozen=True)
class Plan:
    """``n`` problems of each task, chosen by ``seed``, and how they are answered."""

    tasks: Sequence[Task]
    n: int
    seed: int
    settings: Settings

    @cached_property
    def problems(self) -> list[Problem]:
        """Task by task; raises OptionError where a task has none to give."""
        return [problem for task in self.tasks for problem in task.problems(self.n, self.seed)]

    def fingerprint(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """All that decides the rows; ``model``: what is known of it before it is loaded."""
        asked = [(p.task, p.id, p.question, p.answer) for p in self.problems]
        return {
            **model,
            "task": [task.name for task in self.tasks],
            "n": self.n,
            "seed": self.seed,
            **self.settings.to_dict(),
            "problems": blake2b(json.dumps(asked).encode(), digest_size=8).hexdigest(),
            "version": __version__,
        }


def evaluate(
    engine: Engine, plan: Plan, part: PartialResults | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Answer and grade all problems, less those in ``part``, which takes each row as it is done.

    ``progress``, not started yet, is shown once nothing is left to refuse.

    Gives ``tasks`` (a summary each), ``all`` (one over all problems), ``rows`` (a problem each, in
    the plan's order), ``seconds`` (the rows', which is the time spent decoding) and their origin.

    Raises what ``Engine.generate`` raises. Whatever interrupts it, the part holds what was done.
    """
    tasks = {task.name: task for task in plan.tasks}
    rows = {(row["task"], row["id"]): row for row in (part.rows if part else [])}
    wanted = [i for i, p in enumerate(plan.problems) if (p.task, p.id) not in rows]
    finished = answers(engine, plan.problems, plan.settings, wanted)
    with AccuracyProgress(progress, len(plan.problems), list(rows.values())) as shown:
        for answered in finished:
            problem = plan.problems[answered.index]
            correct = tasks[problem.task].grade(problem, answered.result.answer)
            row = as_row(problem, answered, correct)
            if part:
                part.append(row)
            rows[problem.task, problem.id] = row
            shown.add(row)
    ordered = [rows[problem.task, problem.id] for problem in plan.problems]
    by_task = {name: [row for row in ordered if row["task"] == name] for name in tasks}
    return {
        "tasks": {name: summary(of_task) for name, of_task in by_task.items()},
        "all": summary(ordered),
        "rows": ordered,
        "seconds": sum(row["seconds"] for row in ordered),
        **origin(engine.decoder.dtype),
    }


def as_row(problem: Problem, answered: FinishedRow, correct: bool) -> dict[str, Any]:
    """A problem with its answer and what it took; without think markers all tokens are thoughts."""
    result, stats = answered.result, answered.result.stats
    return {
        "task": problem.task,
        "id": problem.id,
        "correct": correct,
        "question": problem.question,
        "reference": problem.answer,
        "answer": result.answer,
        "finish_reason": result.finish_reason,
        "prompt_tokens": len(result.prompt_token_ids),
        "new_tokens": stats.new_tokens,
        "thinking_tokens": stats.thinking_tokens,
        "latent_tokens": stats.latent_tokens,
        "seconds": answered.seconds,
        "kv_bytes_peak": answered.kv_bytes_peak,
        "evictions": stats.evictions,
    }


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Accuracy with its Wilson interval, and costs as means over problems.

    ``..._per_solved``: the cost of all problems over the number solved, None where none is.
    """
    n, solved = len(rows), sum(row["correct"] for row in rows)
    low, high = wilson(solved, n)
    totals = {cost: sum(row[cost] for row in rows) for cost in COSTS}
    return {
        "accuracy": solved / n,
        "low": low,
        "high": high,
        "n": n,
        "solved": solved,
        **{cost: total / n for cost, total in totals.items()},
        **{f"{c}_per_solved": total / solved if solved else None for c, total in totals.items()},
        "finish_reasons": dict(Counter(row["finish_reason"] for row in rows)),
    }


class AccuracyProgress:
    """The progress of an evaluation: problems done, accuracy so far, tokens/s."""

    def __init__(
        self, progress: Progress | None, total: int, done: Sequence[Mapping[str, Any]]
    ) -> None:
        self._progress, self._start, self._tokens = progress, time.perf_counter(), 0
        self._done, self._solved = len(done), sum(row["correct"] for row in done)
        if progress:
            self._task = progress.add_task("eval", total=total, completed=self._done)

    def __enter__(self) -> "AccuracyProgress":
        if self._progress:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress:
            self._progress.stop()

    def add(self, row: Mapping[str, Any]) -> None:
        """Take a finished row in."""
        self._done += 1
        self._solved += row["correct"]
        self._tokens += row["new_tokens"]
        if self._progress:
            rate = self._tokens / (time.perf_counter() - self._start)
            accuracy = self._solved / self._done
            description = f"{self._done} done, {accuracy:.1%} right, {rate:,.0f} tokens/s"
            self._progress.update(self._task, advance=1, description=description)
