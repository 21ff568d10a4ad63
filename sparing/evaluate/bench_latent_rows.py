"""The rows of `sparing bench latent`: every problem by every model of every arm."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from rich.progress import Progress

from sparing import __version__
from sparing.api import Engine, load
from sparing.errors import OptionError
from sparing.evaluate.batch_generate import FinishedRow, Settings, answers
from sparing.evaluate.partial_results import PartialResults
from sparing.latent.ablations import Trained
from sparing.model.fingerprint import files_fingerprint
from sparing.options import Depth, Latent, Sampling
from sparing.tasks.problem import Problem, Task
from sparing.tasks.splits import Split

SPLITS = ("test", "validation")
KEPT = (  # of a row, in a report
    "id",
    "correct",
    "text_tokens",
    "latent_tokens",
    "steps",
    "seconds",
    "finish_reason",
)
Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """``n`` problems of each task, by every one of ``models``. Raises OptionError."""

    models: Sequence[Trained]
    tasks: Sequence[Task]
    n: int
    seed: int
    split: Split = "test"
    max_new_tokens: int = 1400
    batch_size: int = 64
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise OptionError(f"split must be {' or '.join(SPLITS)}, got {self.split!r}")

    @cached_property
    def problems(self) -> list[Problem]:
        """Task by task; raises OptionError where a task has none to give."""
        return [p for task in self.tasks for p in task.problems(self.n, self.seed, self.split)]

    @property
    def arms(self) -> list[str]:
        return list(dict.fromkeys(model.arm for model in self.models))

    def settings(self, model: Trained) -> Settings:
        """Greedy, without drafts, everything kept; latents as the arm has them."""
        sampling = Sampling(temperature=0, max_new_tokens=self.max_new_tokens)
        latent = Latent(mode=model.mode)  # type: ignore[arg-type]
        return Settings(
            depth=Depth(draft="off"), latent=latent, sampling=sampling, batch_size=self.batch_size
        )

    def to_dict(self) -> dict[str, Any]:
        """Every field as JSON, tasks and models by name."""
        names = ("n", "seed", "split", "max_new_tokens", "batch_size", "dtype")
        return {
            "tasks": [task.name for task in self.tasks],
            "models": [f"{m.arm}, seed {m.seed}, {m.mode}" for m in self.models],
            **{name: getattr(self, name) for name in names},
        }

    def fingerprint(self) -> dict[str, Any]:
        """All that decides the rows."""
        asked = [(p.task, p.id, p.question, p.answer) for p in self.problems]
        return {
            **self.to_dict(),
            "model_files": [files_fingerprint(model.folder) for model in self.models],
            "problems": blake2b(json.dumps(asked).encode(), digest_size=8).hexdigest(),
            "version": __version__,
        }


@dataclass(frozen=True)
class Job:
    """Problems of one task that a model is to answer."""

    model: Trained
    wanted: Sequence[int]


Done = tuple[Trained, int, Row]  # with the index of its problem
Runner = Callable[[Sequence[Job]], Iterator[Done]]


def collect(
    plan: Plan, part: PartialResults | None, progress: Progress, runner: Runner | None = None
) -> dict[Trained, list[Row]]:
    """The rows of every model in the problems' order; ``part`` takes each as it is done.

    ``runner``: does the jobs elsewhere; by default here, one after the other.
    """
    found: dict[tuple[Any, ...], Row] = {}
    for row in part.rows if part else []:
        found[row["arm"], row["seed"], row["task"], row["id"]] = row
    names = {m: [(m.arm, m.seed, p.task, p.id) for p in plan.problems] for m in plan.models}
    jobs = [
        Job(model, wanted)
        for model in plan.models
        for wanted in by_task(plan, [name not in found for name in names[model]])
    ]
    with progress:
        total = len(plan.models) * len(plan.problems)
        shown = progress.add_task("starting", total=total, completed=len(found))
        done = runner(jobs) if runner else (d for job in jobs for d in run(None, plan, job))
        for model, index, row in done:
            if part:
                part.append(row)
            found[names[model][index]] = row
            described = f"{model.arm} {model.seed}, {row['task']}"
            progress.update(shown, advance=1, description=described)
    return {model: [found[name] for name in of_model] for model, of_model in names.items()}


def by_task(plan: Plan, missing: Sequence[bool]) -> list[list[int]]:
    """The indices of the problems that are missing, a list a task."""
    wanted: dict[str, list[int]] = {}
    for index, problem in enumerate(plan.problems):
        if missing[index]:
            wanted.setdefault(problem.task, []).append(index)
    return list(wanted.values())


def run(engine: None, plan: Plan, job: Job) -> Iterator[Done]:
    """The job's rows as they are done. ``engine``: none is shared, each model has its own."""
    tasks = {task.name: task for task in plan.tasks}
    problems = [plan.problems[index] for index in job.wanted]
    loaded = engine_of(job.model.folder, plan.dtype)
    for answered in answers(loaded, problems, plan.settings(job.model)):
        problem = problems[answered.index]
        correct = tasks[problem.task].grade(problem, answered.result.answer)
        yield job.model, job.wanted[answered.index], as_row(job.model, problem, answered, correct)


@lru_cache(maxsize=1)
def engine_of(folder: Path, dtype: str) -> Engine:
    """A model, loaded with plain products: the same rows on every run."""
    return load(folder, dtype=dtype)


def as_row(model: Trained, problem: Problem, answered: FinishedRow, correct: bool) -> Row:
    """A problem by a model; ``steps``: passes of the model behind the prompt's."""
    stats = answered.result.stats
    return {
        "arm": model.arm,
        "seed": model.seed,
        "task": problem.task,
        "id": problem.id,
        "correct": correct,
        "text_tokens": stats.new_tokens,
        "latent_tokens": stats.latent_tokens,
        "steps": stats.new_tokens + stats.latent_tokens,
        "seconds": round(answered.seconds, 4),
        "finish_reason": answered.result.finish_reason,
    }


def columns(
    rows: Mapping[Trained, Sequence[Row]],
) -> dict[str, dict[str, dict[str, list[Any]]]]:
    """Model by model and task by task a list a field."""
    found: dict[str, dict[str, dict[str, list[Any]]]] = {}
    for model, of_model in rows.items():
        tasks = found.setdefault(f"{model.arm}/{model.seed}", {})
        for row in of_model:
            of_task = tasks.setdefault(row["task"], {field: [] for field in KEPT})
            for field, values in of_task.items():
                values.append(int(row[field]) if field == "correct" else row[field])
    return found
