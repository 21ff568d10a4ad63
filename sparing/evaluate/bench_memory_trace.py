"""One trace of `sparing bench memory`: what was predicted of its tokens, and what came true."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sparing.api import Engine
from sparing.engine.cache import Kind
from sparing.engine.events import TokenEvent
from sparing.engine.eviction import Budget, select
from sparing.errors import OptionError
from sparing.evaluate.answering import Settings, answers
from sparing.evaluate.bench_memory_rows import Plan, Row
from sparing.memory.predictor import CONFIG_FILE
from sparing.memory.targets import importance
from sparing.memory.traces import thought
from sparing.model.config import read_json
from sparing.tasks.problem import Problem

SHARE = 0.25


@dataclass(frozen=True)
class Target:
    """What a predictor was trained on: the target's name, and the window that is no future."""

    name: str
    window: int

    @classmethod
    def of(cls, home: Path | None) -> "Target":
        """Of the predictor in ``home``; raises OptionError where there is none that says it."""
        try:
            config = read_json(home / CONFIG_FILE) if home else {}
            return cls(str(config["fit"]["target"]), int(config["traces"]["window"]))
        except (KeyError, TypeError, ValueError):
            raise OptionError(
                f"--trace-plot needs an importance predictor and what it was trained on, got "
                f"{home or 'none'}; train one with `sparing train predictor`"
            ) from None


def trace(engine: Engine, plan: Plan, full: Sequence[Row], target: Target) -> dict[str, Any] | None:
    """The first task's first problem that the full cache solved; None where there is none."""
    for problem, row in zip(plan.problems, full, strict=True):
        answered = 0 < row["thinking_tokens"] < row["new_tokens"]
        if row["correct"] and answered and problem.task == plan.tasks[0].name:
            question, thinking = row["prompt_tokens"], row["thinking_tokens"]
            memory = plan.memory(("learned", SHARE), question, thinking)
            budget = Budget.of(memory, question, thinking)
            assert budget is not None
            return read(engine, problem, plan.settings, budget, target)
    return None


def read(
    engine: Engine, problem: Problem, settings: Settings, budget: Budget, target: Target
) -> dict[str, Any]:
    """Answer the problem with the full cache; its thinking tokens with all that is known of them.

    ``evicted``: those that would be gone at the end of this same trace under ``budget``.
    """
    [answered] = answers(engine, [problem], settings)
    result = answered.result
    said = [event for event in result.events if isinstance(event, TokenEvent)]
    begin, count = len(result.prompt_token_ids), thought(result)
    ids = [*result.prompt_token_ids, *result.token_ids]
    true = importance(engine.decoder, ids, begin, begin + count, target.window)
    scores = np.array([0.0] * begin + [event.score or 0.0 for event in said])
    kinds = np.array([Kind.PROMPT] * begin + [Kind[event.kind.upper()] for event in said])
    gone = set(chain.from_iterable(evictions(scores, kinds, budget)))
    return {
        "task": problem.task,
        "id": problem.id,
        "target": target.name,
        "share": SHARE,
        "tokens": [event.text for event in said[:count]],
        "predicted": scores[begin : begin + count].tolist(),
        "true": true.target(target.name).tolist(),
        "evicted": [begin + offset in gone for offset in range(count)],
    }


def evictions(
    scores: Float[np.ndarray, " N"], kinds: Int[np.ndarray, " N"], budget: Budget
) -> list[Sequence[int]]:
    """The positions freed at each eviction while a given trace is decoded under a budget.

    The last token is never cached, and the one before it is the last step's: no eviction follows.
    """
    slots, freed = np.arange(budget.question), list[Sequence[int]]()
    for position in range(budget.question, len(scores) - 2):
        slots = np.append(slots, position)
        if len(slots) >= budget.slots:
            keep = select(scores[slots], kinds[slots], budget)
            if keep is None:
                break
            freed.append(slots[~keep].tolist())
            slots = slots[keep]
    return freed
