"""How many problems a model solves, and what each one costs in words, seconds and memory."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rich.progress import Progress

from sparing.api import Engine
from sparing.evaluate.batch_generate import FinishedRow, Settings, answers
from sparing.evaluate.compare import COSTS
from sparing.evaluate.experiment import BatchExperiment, Row, Rows, Runner, draw
from sparing.evaluate.partial_results import PartialResults
from sparing.evaluate.report import origin
from sparing.evaluate.statistics import wilson
from sparing.tasks.problem import Problem, Task

CUT_OFF = ("length", "budget", "context")  # finish reasons of an answer that did not end by itself
ARM = "model"  # the only one


@dataclass(frozen=True)
class AccuracyExperiment(BatchExperiment[str]):
    """``n`` problems of each task, chosen by ``seed``, and how they are answered.

    ``thoughts``: rows keep the thinking, too.
    """

    tasks: Sequence[Task]
    n: int
    seed: int
    how: Settings
    thoughts: bool = False

    keys = ()
    mixed = True
    arms = (ARM,)

    @cached_property
    def problems(self) -> list[Problem]:
        return draw(self.tasks, self.n, self.seed)

    def key(self, arm: str) -> tuple[Any, ...]:
        return ()

    def label(self, arm: str) -> str:
        return arm

    def settings(self, arm: str, before: Row | None) -> Settings:
        return self.how

    def refuse(self, loaded: Engine) -> None:
        answers(loaded, self.problems, self.how, [])

    def describe(self, arm: str, row: Row, found: Rows) -> str:
        """Accuracy and speed so far."""
        solved, tokens, seconds = (
            sum(row[name] for row in found.values())
            for name in ("correct", "new_tokens", "seconds")
        )
        return f"{solved / len(found):.1%} right, {tokens / seconds:,.0f} tokens/s"

    def to_dict(self) -> dict[str, Any]:
        names = [task.name for task in self.tasks]
        return {
            "task": names,
            "n": self.n,
            "seed": self.seed,
            "thoughts": self.thoughts,
        } | self.how.to_dict()

    def measured(self, problem: Problem, finished: FinishedRow, before: Row | None) -> Row:
        """The answer and what it took."""
        result, stats = finished.result, finished.result.stats
        return {
            "question": problem.question,
            "reference": problem.answer,
            "answer": result.answer,
            **({"thinking": result.thinking} if self.thoughts else {}),
            "finish_reason": result.finish_reason,
            "prompt_tokens": len(result.prompt_token_ids),
            "new_tokens": stats.new_tokens,
            "thinking_tokens": stats.thinking_tokens,
            "latent_tokens": stats.latent_tokens,
            "seconds": finished.seconds,
            "kv_bytes_peak": finished.kv_bytes_peak,
            "slots_peak": stats.slots_peak,
            "evictions": stats.evictions,
            "policy": stats.policy,
            "budget": finished.budget,
            "max_new_tokens": finished.max_new_tokens,
        }


def evaluate(
    engine: Engine,
    experiment: AccuracyExperiment,
    part: PartialResults | None = None,
    progress: Progress | None = None,
    runner: Runner | None = None,
) -> dict[str, Any]:
    """Answer and grade all problems; the arguments are those of ``Experiment.collect``.

    Gives ``tasks`` (a summary each), ``all`` (one over all problems), ``rows`` (a problem each, in
    the problems' order), ``seconds`` (of decoding, over all rows), ``policy`` and their origin.
    """
    progress = progress or Progress(disable=True)
    [rows] = experiment.collect(engine, part, progress, runner).values()
    names = [task.name for task in experiment.tasks]
    return {
        "tasks": {name: summary([row for row in rows if row["task"] == name]) for name in names},
        "all": summary(rows),
        "rows": rows,
        "policy": rows[0]["policy"],
        "seconds": sum(row["seconds"] for row in rows),
        **origin(engine.decoder.dtype),
    }


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Accuracy with its Wilson interval, and costs as means over problems.

    ``..._per_solved``: the cost of all problems over the number solved, None where none is
    ``cut_off``: the number of answers that did not end by themselves
    ``slots_peak``: the most slots in use by a problem
    ``budget``: in slots, the least, the mean and the most of a problem; None without one
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
        "cut_off": sum(row["finish_reason"] in CUT_OFF for row in rows),
        "evictions": sum(row["evictions"] for row in rows) / n,
        "slots_peak": max(row["slots_peak"] for row in rows),
        "budget": budget_range([row["budget"] for row in rows]),
    }


def budget_range(slots: Sequence[int | None]) -> dict[str, float] | None:
    given = [each for each in slots if each is not None]
    if not given:
        return None
    return {"low": min(given), "mean": sum(given) / len(given), "high": max(given)}
