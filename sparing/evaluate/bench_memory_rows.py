"""The rows of `sparing bench memory`: every problem with all kept, and under each policy."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any

from rich.progress import Progress

from sparing import __version__
from sparing.api import Engine
from sparing.errors import OptionError
from sparing.evaluate.batch_generate import FinishedRow, Settings, answers
from sparing.evaluate.partial_results import PartialResults
from sparing.memory.find import POLICIES, PREDICTED, find_policy
from sparing.options import Depth, Memory, Sampling, known_policies
from sparing.tasks.problem import Problem, Task
from sparing.tasks.splits import Split

FULL = ("full", 1.0)
SPLITS = ("test", "validation")
LEAST_ROOM = 8  # slots beside the question, however short the thought
KEPT = (  # of a row, in a report
    "id",
    "correct",
    "prompt_tokens",
    "thinking_tokens",
    "new_tokens",
    "seconds",
    "kv_bytes_peak",
    "evictions",
    "finish_reason",
)
Arm = tuple[str, float]  # a policy at a share
Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """``n`` problems of each task with everything kept, and with each policy at each share.

    ``local``, ``selection``: as in ``Memory``, the same for every policy. Raises OptionError.
    """

    tasks: Sequence[Task]
    n: int
    seed: int
    policies: Sequence[str]
    shares: Sequence[float]
    split: Split = "test"
    local: int | float | None = None
    selection: int | float | None = None
    max_new_tokens: int = 1400
    batch_size: int = 64

    def __post_init__(self) -> None:
        known = [name for name in known_policies() if name not in ("auto", "full")]
        if unknown := [name for name in self.policies if name not in known]:
            raise OptionError(f"policies must be among {', '.join(known)}, got {unknown[0]!r}")
        if wrong := [share for share in self.shares if not 0 < share <= 1]:
            raise OptionError(f"shares must lie in (0, 1], got {wrong[0]:g}")
        if self.split not in SPLITS:
            raise OptionError(f"split must be {' or '.join(SPLITS)}, got {self.split!r}")
        if isinstance(self.local, float) and self.local == 1:
            raise OptionError("local must leave room for other slots, got 1.0; pass 0.9 or less")
        for policy in self.policies:
            self._memory(policy, LEAST_ROOM)

    @cached_property
    def problems(self) -> list[Problem]:
        """Task by task; raises OptionError where a task has none to give."""
        return [p for task in self.tasks for p in task.problems(self.n, self.seed, self.split)]

    @property
    def arms(self) -> list[Arm]:
        """The full cache, then each share under each policy."""
        return [FULL, *((policy, share) for share in self.shares for policy in self.policies)]

    @property
    def settings(self) -> Settings:
        """Greedy, without drafts, everything kept."""
        sampling = Sampling(temperature=0, max_new_tokens=self.max_new_tokens)
        return Settings(depth=Depth(draft="off"), sampling=sampling, batch_size=self.batch_size)

    def memory(self, arm: Arm, question: int, thinking: int) -> Memory:
        """The budget of a problem: its question and a share of what the full run thought."""
        policy, share = arm
        return self._memory(policy, budget_of(share, question, thinking, self.local))

    def _memory(self, policy: str, budget: int) -> Memory:
        return Memory(
            budget=budget,
            local=self.local,
            selection=self.selection,
            policy=policy,
        )

    def to_dict(self) -> dict[str, Any]:
        """Every field as JSON, the tasks by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"tasks": [task.name for task in self.tasks]}

    def fingerprint(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """All that decides the rows; ``model``: what is known of it before it is loaded."""
        asked = [(p.task, p.id, p.question, p.answer) for p in self.problems]
        return {
            **model,
            **self.to_dict(),
            "problems": blake2b(json.dumps(asked).encode(), digest_size=8).hexdigest(),
            "version": __version__,
        }


def budget_of(share: float, question: int, thinking: int, local: int | float | None = None) -> int:
    """Slots for a question and a share of what was thought with everything kept.

    Behind the question there are at least ``LEAST_ROOM``, or one more than ``local``.
    """
    room = max(round(share * thinking), LEAST_ROOM)
    if isinstance(local, int):
        room = max(room, local + 1)
    return question + room


def chosen_policies(names: Sequence[str] | None, predicts: bool) -> list[str]:
    """The policies asked for; None: all that a model can use that ``predicts`` importance or not.

    Raises OptionError where one needs a predictor and there is none.
    """
    if names is None:
        return [name for name in POLICIES if predicts or name not in PREDICTED]
    for name in names:
        if name in PREDICTED:
            memory = Memory(budget=LEAST_ROOM, policy=name)
            find_policy(memory, None, (0,) if predicts else None)
    return list(dict.fromkeys(names))


@dataclass(frozen=True)
class Job:
    """Problems of one task to answer under an arm; ``full``: their rows with everything kept."""

    arm: Arm
    wanted: Sequence[int]
    full: Sequence[Row] | None = None


Done = tuple[Arm, int, Row]  # with the index of its problem
Runner = Callable[[Sequence[Job]], Iterator[Done]]


def collect(
    engine: Engine,
    plan: Plan,
    part: PartialResults | None,
    progress: Progress,
    runner: Runner | None = None,
) -> dict[Arm, list[Row]]:
    """The rows of every arm in the problems' order; ``part`` takes each as it is done.

    ``runner``: does the jobs elsewhere; by default here, one after the other. Raises what
    ``Engine.generate`` raises, before ``progress`` is shown.
    """
    found: dict[tuple[Any, ...], Row] = {}
    for row in part.rows if part else []:
        found[row["policy"], row["share"], row["task"], row["id"]] = row
    answers(engine, plan.problems, plan.settings, [])  # refuses what cannot be asked
    total = len(plan.arms) * len(plan.problems)
    runs: dict[Arm, list[Row]] = {}
    with progress:
        shown = progress.add_task("full", total=total, completed=len(found))
        for arms in ([FULL], [arm for arm in plan.arms if arm != FULL]):
            named = {arm: [(*arm, p.task, p.id) for p in plan.problems] for arm in arms}
            jobs = [
                Job(arm, wanted, [runs[FULL][i] for i in wanted] if FULL in runs else None)
                for arm in arms
                for wanted in by_task(plan, [n not in found for n in named[arm]])
            ]
            for arm, index, row in runner(jobs) if runner else in_turn(engine, plan, jobs):
                if part:
                    part.append(row)
                found[named[arm][index]] = row
                progress.update(shown, advance=1, description=f"{arm_name(arm)}, {row['task']}")
            runs |= {arm: [found[name] for name in names] for arm, names in named.items()}
    return runs


def by_task(plan: Plan, missing: Sequence[bool]) -> list[list[int]]:
    """The indices of the problems that are missing, a list a task."""
    wanted: dict[str, list[int]] = {}
    for index, problem in enumerate(plan.problems):
        if missing[index]:
            wanted.setdefault(problem.task, []).append(index)
    return list(wanted.values())


def in_turn(engine: Engine, plan: Plan, jobs: Sequence[Job]) -> Iterator[Done]:
    return (done for job in jobs for done in run(engine, plan, job))


def run(engine: Engine, plan: Plan, job: Job) -> Iterator[Done]:
    """The job's rows as they are done. Long thoughts come first: rows that end together leave no
    batch half empty."""
    tasks = {task.name: task for task in plan.tasks}
    thinking = [row["thinking_tokens"] for row in job.full or []]
    order = sorted(range(len(job.wanted)), key=lambda at: -thinking[at] if thinking else 0)
    problems = [plan.problems[job.wanted[at]] for at in order]
    settings: Settings | list[Settings] = plan.settings
    if job.full:
        full = [job.full[at] for at in order]
        memories = [plan.memory(job.arm, r["prompt_tokens"], r["thinking_tokens"]) for r in full]
        settings = [replace(plan.settings, memory=memory) for memory in memories]
    for answered in answers(engine, problems, settings):
        at, problem = order[answered.index], problems[answered.index]
        correct = tasks[problem.task].grade(problem, answered.result.answer)
        kv_bytes_full = job.full[at]["kv_bytes_peak"] if job.full else answered.kv_bytes_peak
        yield job.arm, job.wanted[at], as_row(job.arm, problem, answered, correct, kv_bytes_full)


def as_row(
    arm: Arm, problem: Problem, answered: FinishedRow, correct: bool, kv_bytes_full: int
) -> Row:
    """A problem under a policy; ``kv_bytes_full``: of the full cache's run on that problem."""
    result, stats = answered.result, answered.result.stats
    return {
        "policy": arm[0],
        "share": arm[1],
        "task": problem.task,
        "id": problem.id,
        "correct": correct,
        "prompt_tokens": len(result.prompt_token_ids),
        "thinking_tokens": stats.thinking_tokens,
        "new_tokens": stats.new_tokens,
        "seconds": round(answered.seconds, 4),
        "kv_bytes_peak": answered.kv_bytes_peak,
        "kv_bytes_full": kv_bytes_full,
        "evictions": stats.evictions,
        "finish_reason": result.finish_reason,
    }


def columns(runs: Mapping[Arm, Sequence[Row]]) -> dict[str, dict[str, dict[str, list[Any]]]]:
    """Arm by arm and task by task a list a field: a tenth of the rows' own size as JSON."""
    found: dict[str, dict[str, dict[str, list[Any]]]] = {}
    for arm, rows in runs.items():
        tasks = found.setdefault(arm_name(arm), {})
        for row in rows:
            of_task = tasks.setdefault(row["task"], {field: [] for field in KEPT})
            for field, values in of_task.items():
                values.append(int(row[field]) if field == "correct" else row[field])
    return found


def arm_name(arm: Arm) -> str:
    """As in the figures' names: ``learned/0.25``."""
    return "full" if arm == FULL else f"{arm[0]}/{arm[1]:g}"
