"""One trace of `sparing bench memory`: what was predicted of its tokens, and what came true."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparing.api import Engine
from sparing.engine.events import EvictEvent, TokenEvent, scores_by_position
from sparing.engine.result import Result
from sparing.errors import OptionError
from sparing.evaluate.batch_generate import answers
from sparing.evaluate.bench_memory_rows import MemoryExperiment
from sparing.evaluate.experiment import Row
from sparing.files import read_json
from sparing.memory.files import CONFIG_FILE
from sparing.memory.targets import importance
from sparing.memory.traces import thought
from sparing.tasks.problem import Problem

SHARE = 0.25


@dataclass(frozen=True)
class Target:
    """What a predictor was trained on: the target's name, and its first horizon."""

    name: str
    horizon: int

    @classmethod
    def of(cls, home: Path | None) -> "Target":
        """Of the predictor in ``home``; raises OptionError where there is none that says it."""
        try:
            config = read_json(home / CONFIG_FILE) if home else {}
            return cls(str(config["fit"]["target"]), int(config["horizons"][0]))
        except (KeyError, TypeError, ValueError, IndexError):
            raise OptionError(
                f"--trace-plot needs an importance predictor and what it was trained on, got "
                f"{home or 'none'}; train one with `sparing train predictor`"
            ) from None


def trace(
    engine: Engine, experiment: MemoryExperiment, full: Sequence[Row], target: Target
) -> dict[str, Any] | None:
    """The first task's first problem solved with everything kept, and again under the learned
    policy at ``SHARE``; None where there is none."""
    task = experiment.tasks[0]
    for problem, row in zip(experiment.problems, full, strict=True):
        answered = 0 < row["thinking_tokens"] < row["new_tokens"]
        if row["correct"] and answered and problem.task == task.name:
            settings = experiment.settings(("learned", SHARE), row)
            [found] = answers(engine, [problem], settings)
            if task.grade(problem, found.result.answer):
                return read(engine, problem, found.result, target)
    return None


def read(engine: Engine, problem: Problem, result: Result, target: Target) -> dict[str, Any]:
    """A result's thinking tokens with all that is known of them.

    ``predicted`` and ``true``: for the first horizon, the truth of a full cache that reads the
    same tokens; ``evicted``: those whose keys and values were gone at the end.
    """
    said = [event for event in result.events if isinstance(event, TokenEvent)]
    gone = {p for e in result.events if isinstance(e, EvictEvent) for p in e.positions}
    predicted = scores_by_position(result.events)
    begin, count = len(result.prompt_token_ids), thought(result)
    ids = [*result.prompt_token_ids, *result.token_ids]
    true = importance(engine.decoder, ids, begin, begin + count, [target.horizon])
    return {
        "task": problem.task,
        "id": problem.id,
        "target": target.name,
        "share": SHARE,
        "tokens": [event.text for event in said[:count]],
        "predicted": [predicted.get(event.position) for event in said[:count]],
        "true": true.target(target.name)[:, 0].tolist(),
        "evicted": [event.position in gone for event in said[:count]],
    }
