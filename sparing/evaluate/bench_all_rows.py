"""The rows of `sparing bench all`: every problem by every arm, in turns."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from rich.progress import Progress

from sparing import __version__
from sparing.api import Engine
from sparing.errors import OptionError
from sparing.evaluate.batch_generate import Settings, answers
from sparing.evaluate.bench_all_arms import DEPTH, MEMORY, ArmAnswer, ArmQuestion, Arms, savings
from sparing.evaluate.bench_memory_rows import budget_of
from sparing.evaluate.partial_results import PartialResults
from sparing.options import Depth, Memory, Sampling
from sparing.tasks.problem import Problem, Task

TEMPERATURE, TOP_P = 0.8, 0.95
GRAM = 4  # tokens, of which those that are new are counted
LENGTH = ""  # the arm of rows that only say how much is thought with everything kept
WARM_UP_TOKENS = 16
WARM_DRAFTS = 512  # tokens a question, as drafts need more to get warm on
KEPT = (  # of a row, in a report
    "id",
    "correct",
    "prompt_tokens",
    "text_tokens",
    "latent_tokens",
    "thinking_tokens",
    "seconds",
    "kv_bytes",
    "distinct4",
    "drafted",
    "accepted",
    "evictions",
    "finish_reason",
    "tokens",  # their hash: what is drafted or not must be the same
)
Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """``problems`` by each of ``arms``, which get warm on others.

    With ``tasks``, whose problems they are, answers go to their end, within ``new_tokens``, and are
    graded; without, all are of just as many tokens. ``budget``: slots, or a share of what is
    thought with everything kept. ``seed``: of the noise. Raises OptionError.
    """

    arms: Sequence[str]
    problems: Sequence[Problem]
    warm_up: Sequence[Problem]
    tasks: Sequence[Task]
    budget: int | float
    new_tokens: int
    greedy: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        Memory(budget=self.budget)

    @property
    def settings(self) -> Settings:
        """Everything kept, no drafts; every problem has noise of its own."""
        sampling = Sampling(
            temperature=0.0 if self.greedy else TEMPERATURE,
            top_p=None if self.greedy else TOP_P,
            max_new_tokens=self.new_tokens,
            ignore_eos=not self.tasks,
        )
        return Settings(
            depth=Depth(draft="off"), sampling=sampling, batch_size=16, sample_seed=self.seed
        )

    @property
    def needs_lengths(self) -> bool:
        """Whether a budget depends on how much is thought of a problem."""
        spares = any(MEMORY in savings(arm) for arm in self.arms)
        return spares and isinstance(self.budget, float) and bool(self.tasks)

    def memory(self, question: int, thinking: int) -> Memory:
        """Under the model's own policy."""
        if isinstance(self.budget, int):
            return Memory(budget=self.budget)
        return Memory(budget=budget_of(self.budget, question, thinking))

    def to_dict(self) -> dict[str, Any]:
        """All that it says, as JSON; tasks and problems by name."""
        return {
            "tasks": [task.name for task in self.tasks],
            "problems": [[p.task, p.id] for p in self.problems],
            **{n: getattr(self, n) for n in ("arms", "budget", "new_tokens", "greedy", "seed")},
            **({} if self.greedy else {"temperature": TEMPERATURE, "top_p": TOP_P}),
        }

    def fingerprint(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """All that decides the rows; ``model``: what is known of it before it is loaded."""
        asked = [(p.question, p.answer) for p in (*self.problems, *self.warm_up)]
        return {**model, **self.to_dict(), "questions": hashed(asked), "version": __version__}


def posed(tasks: Sequence[Task], n: int, seed: int) -> tuple[list[Problem], list[Problem]]:
    """``n`` problems of each task, and one more of each to get warm on; raises OptionError."""
    problems: list[Problem] = []
    warm_up: list[Problem] = []
    for task in tasks:
        *measured, last = task.problems(n + 1, seed)
        if not measured:
            raise OptionError(f"{task.name} must have 2 problems or more, got 1: one is to warm up")
        problems += measured
        warm_up.append(last)
    return problems, warm_up


def prompted(
    prompts: Sequence[str], n: int, others: Sequence[str]
) -> tuple[list[Problem], list[Problem]]:
    """``n`` times a prompt, the same one with other noise where there are fewer, and those of the
    ``others`` that are not among them to get warm on."""
    asked = [prompts[at % len(prompts)] for at in range(n)]
    named = {"prompts": asked, "warm-up": [prompt for prompt in others if prompt not in asked]}
    measured, warm_up = (
        [Problem(name, i, prompt, "") for i, prompt in enumerate(some, 1)]
        for name, some in named.items()
    )
    return measured, warm_up


def collect(
    arms: Arms, engine: Engine, plan: Plan, part: PartialResults | None, progress: Progress
) -> dict[str, list[Row]]:
    """The rows of every arm in the problems' order; ``part`` takes each as it is done.

    Problem by problem all arms in turns, another one first each time. Raises what
    ``Engine.generate`` raises, before ``progress`` is shown.
    """
    refuse(engine, plan)
    found = {named(row): row for row in (part.rows if part else [])}

    def keep(row: Row) -> None:
        if part:
            part.append(row)
        found[named(row)] = row

    wanted = [
        (arm, problem)
        for place, problem in enumerate(plan.problems)
        for arm in rotated(plan.arms, place)
        if (arm, problem.task, problem.id) not in found
    ]
    with progress:
        total = len(plan.arms) * len(plan.problems)
        shown = progress.add_task("lengths of thoughts", total=total, completed=total - len(wanted))
        asking = Asking(arms, engine, plan, found)
        for row in asking.lengths():
            keep(row)
        for arm in dict.fromkeys(arm for arm, _ in wanted):
            progress.update(shown, description=f"{arm} warms up")
            asking.warm_up(arm)
        for arm, problem in wanted:
            progress.update(shown, description=f"{arm}, {problem.task} {problem.id}")
            keep(asking.row(arm, problem))
            progress.advance(shown)
    return {arm: [found[arm, p.task, p.id] for p in plan.problems] for arm in plan.arms}


def refuse(engine: Engine, plan: Plan) -> None:
    """Raise what cannot be asked, or not under a budget that is known beforehand."""
    counted = isinstance(plan.budget, int) and any(MEMORY in savings(arm) for arm in plan.arms)
    memory = plan.memory(0, 0) if counted else Memory()
    settings = replace(plan.settings, memory=memory, batch_size=1)
    answers(engine, [*plan.problems, *plan.warm_up], settings, [])


def rotated(arms: Sequence[str], by: int) -> list[str]:
    by %= len(arms)
    return [*arms[by:], *arms[:by]]


def named(row: Row) -> tuple[str, str, int]:
    return row["arm"], row["task"], row["id"]


class Asking:
    """A plan's problems, put to the arms. ``found``: all rows that there are, by name."""

    def __init__(
        self, arms: Arms, engine: Engine, plan: Plan, found: Mapping[tuple[str, str, int], Row]
    ) -> None:
        self.arms, self.engine, self.plan, self.found = arms, engine, plan, found
        self.tasks = {task.name: task for task in plan.tasks}

    def lengths(self) -> Iterator[Row]:
        """Rows that say how much is thought of a problem, where they are missing and needed."""
        problems = [*self.plan.problems, *self.plan.warm_up] if self.plan.needs_lengths else []
        wanted = [i for i, p in enumerate(problems) if (LENGTH, p.task, p.id) not in self.found]
        for answered in answers(self.engine, problems, self.plan.settings, wanted):
            problem, stats = problems[answered.index], answered.result.stats
            yield {
                "arm": LENGTH,
                "task": problem.task,
                "id": problem.id,
                "thinking_tokens": stats.thinking_tokens,
            }

    def warm_up(self, arm: str) -> None:
        """A few tokens, and where it drafts some of each question."""
        drafts = DEPTH in savings(arm)
        most = min(WARM_DRAFTS if drafts else WARM_UP_TOKENS, self.plan.new_tokens)
        for problem in self.plan.warm_up if drafts else self.plan.warm_up[:1]:
            self.arms[arm](self._asked(problem, most))
        self.arms[arm].remember()

    def row(self, arm: str, problem: Problem) -> Row:
        answer = self.arms[arm](self._asked(problem, self.plan.new_tokens))
        correct = None
        if self.tasks:
            correct = self.tasks[problem.task].grade(problem, answer.answer)
        return as_row(arm, problem, answer, correct)

    def _asked(self, problem: Problem, most: int) -> ArmQuestion:
        plan = self.plan
        prompt = self.engine.chat.question(problem.question)
        told = {"seed": plan.settings.noise_seed(problem), "max_new_tokens": most}
        sampling = Sampling(**plan.settings.sampling.model_dump() | told)
        thinking = plan.new_tokens
        if plan.needs_lengths:
            thinking = self.found[LENGTH, problem.task, problem.id]["thinking_tokens"]
        question = len(self.engine.chat.encode(prompt).ids)
        return ArmQuestion(prompt, sampling, plan.memory(question, thinking))


def as_row(arm: str, problem: Problem, answer: ArmAnswer, correct: bool | None) -> Row:
    """A problem by an arm; ``correct`` None: nobody grades it."""
    return {
        "arm": arm,
        "task": problem.task,
        "id": problem.id,
        "correct": correct,
        "text_tokens": len(answer.ids),
        "seconds": round(answer.seconds, 4),
        "kv_bytes": answer.kv_bytes,
        "distinct4": distinct(answer.ids),
        "tokens": hashed(answer.ids),
        "finish_reason": answer.finish_reason,
        **answer.more,
    }


def distinct(ids: Sequence[int], size: int = GRAM) -> float:
    """Of all runs of ``size`` tokens, the share that is there for the first time: text in a loop
    comes close to 0. 1 where there is no such run."""
    grams = [tuple(ids[at : at + size]) for at in range(len(ids) - size + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0


def hashed(content: Any) -> str:
    """16 hexadecimal digits of some JSON."""
    return blake2b(json.dumps(content).encode(), digest_size=8).hexdigest()


def columns(rows: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, dict[str, list[Any]]]]:
    """Arm by arm and task by task a list a field."""
    found: dict[str, dict[str, dict[str, list[Any]]]] = {}
    for arm, of_arm in rows.items():
        tasks = found.setdefault(arm, {})
        for row in of_arm:
            of_task = tasks.setdefault(row["task"], {field: [] for field in KEPT})
            for field, values in of_task.items():
                values.append(row.get(field))
    return found
