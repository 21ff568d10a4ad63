"""Problems by arms, a row each: here or in other processes, resumed where it was interrupted."""

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from rich.progress import Progress

from sparing import __version__
from sparing.api import Engine
from sparing.errors import OptionError
from sparing.evaluate.batch_generate import FinishedRow, Settings, answers
from sparing.evaluate.partial_results import PartialResults
from sparing.tasks.problem import Problem, Task

SPLITS = ("test", "validation")
PARTS = 2  # jobs a worker at least
Row = dict[str, Any]
Rows = Mapping[tuple[Any, ...], Row]  # by arm, task and id
Done = tuple[Any, int, Row]  # an arm, a problem's place, and the row
A = TypeVar("A", bound=Hashable)  # what tells one arm from another


@dataclass(frozen=True)
class Job:
    """Problems for an arm to answer, by their places in ``asked``.

    ``before``: rows of an earlier stage that the arm needs, one a problem; empty where it needs
    none.
    """

    arm: Any
    places: Sequence[int]
    before: Sequence[Row] = ()

    def only(self, chosen: Sequence[int]) -> "Job":
        """Some of its problems, by their indices in ``places``."""
        before = [self.before[index] for index in chosen] if self.before else ()
        return Job(self.arm, [self.places[index] for index in chosen], before)

    def without(self, done: Collection[int]) -> "Job":
        """What is left of it; ``done``: places."""
        return self.only([i for i, place in enumerate(self.places) if place not in done])

    def parts(self, count: int) -> list["Job"]:
        """At most ``count`` jobs that take turns at its problems: each has some of every task."""
        n = len(self.places)
        return [self.only(range(first, n, count)) for first in range(min(count, n))]


class Runner(Protocol):
    """Does jobs elsewhere, ``workers`` at a time; rows come as they are done."""

    workers: int

    def __call__(self, jobs: Sequence[Job]) -> Iterator[Done]: ...


class Experiment(ABC, Generic[A]):
    """Every problem by every arm.

    ``keys``: the fields of a row that name its arm.
    ``reported``: the fields of a row that a report keeps.
    ``mixed``: an arm answers all tasks in one job, instead of a job a task.
    """

    tasks: Sequence[Task]
    keys: ClassVar[Sequence[str]]
    reported: ClassVar[Sequence[str]]
    mixed: ClassVar[bool] = False

    @property
    @abstractmethod
    def problems(self) -> Sequence[Problem]: ...

    @property
    @abstractmethod
    def arms(self) -> Sequence[A]: ...

    @abstractmethod
    def key(self, arm: A) -> tuple[Any, ...]:
        """The values of ``keys``."""

    @abstractmethod
    def label(self, arm: A) -> str:
        """An arm in the names of figures."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """All settings as JSON, tasks by name."""

    @abstractmethod
    def run(self, loaded: Any, job: Job) -> Iterator[Done]:
        """The job's rows as they are done; ``loaded``: an engine, or what else the arms need."""

    @property
    def stages(self) -> Sequence[Sequence[A]]:
        """Arms in the order in which they run; a stage may use the rows of those before it."""
        return [self.arms]

    def asked(self, arm: A) -> Sequence[Problem]:
        """What an arm answers."""
        return self.problems

    def before(self, arm: A, places: Sequence[int], found: Rows) -> Sequence[Row]:
        """The rows that a job needs."""
        return ()

    def refuse(self, loaded: Any) -> None:
        """Raise what cannot be asked, before any work."""

    def describe(self, arm: A, row: Row, found: Rows) -> str:
        """Progress after a row."""
        return f"{self.label(arm)}, {row['task']}"

    def name(self, arm: A, problem: Problem) -> tuple[Any, ...]:
        return (*self.key(arm), problem.task, problem.id)

    def new_row(self, arm: A, problem: Problem) -> Row:
        """What every row begins with."""
        names = (*self.keys, "task", "id")
        return dict(zip(names, self.name(arm, problem), strict=True))

    def grade(self, problem: Problem, answer: str) -> bool:
        [task] = [task for task in self.tasks if task.name == problem.task]
        return task.grade(problem, answer)

    def jobs(self, arms: Sequence[A], found: Rows) -> list[Job]:
        """What is missing of a stage."""
        jobs = []
        for arm in arms:
            places: dict[str, list[int]] = {}
            for place, problem in enumerate(self.asked(arm)):
                if self.name(arm, problem) not in found:
                    places.setdefault("" if self.mixed else problem.task, []).append(place)
            jobs += [Job(arm, some, self.before(arm, some, found)) for some in places.values()]
        return jobs

    def collect(
        self,
        loaded: Any,
        part: PartialResults | None,
        progress: Progress,
        runner: Runner | None = None,
    ) -> dict[A, list[Row]]:
        """The rows of every arm in the problems' order; ``part`` takes each as it is done.

        ``runner`` does the jobs elsewhere; by default they run here, one after another. Raises what
        ``refuse`` raises before ``progress`` is shown.
        """
        self.refuse(loaded)
        names = (*self.keys, "task", "id")
        found = {tuple(row[name] for name in names): row for row in (part.rows if part else [])}
        total = sum(len(self.asked(arm)) for stage in self.stages for arm in stage)
        with progress:
            shown = progress.add_task("starting", total=total, completed=len(found))
            for stage in self.stages:
                jobs = self.jobs(stage, found)
                if runner:
                    done = runner(shared(jobs, runner.workers))
                else:
                    done = self.in_turn(loaded, jobs)
                for arm, place, row in done:
                    if part:
                        part.append(row)
                    found[self.name(arm, self.asked(arm)[place])] = row
                    described = self.describe(arm, row, found)
                    progress.update(shown, advance=1, description=described)
        return {arm: [found[self.name(arm, p)] for p in self.problems] for arm in self.arms}

    def in_turn(self, loaded: Any, jobs: Sequence[Job]) -> Iterator[Done]:
        return (done for job in jobs for done in self.run(loaded, job))

    def columns(self, rows: Mapping[A, Sequence[Row]]) -> dict[str, Any]:
        """Arm by arm and task by task a list a field: a tenth of the rows' own size as JSON."""
        found: dict[str, dict[str, dict[str, list[Any]]]] = {}
        for arm, of_arm in rows.items():
            tasks = found.setdefault(self.label(arm), {})
            for row in of_arm:
                of_task = tasks.setdefault(row["task"], {field: [] for field in self.reported})
                for field, values in of_task.items():
                    value = row.get(field)
                    values.append(int(value) if isinstance(value, bool) else value)
        return found

    def fingerprint(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """All that decides the rows; ``model``: what is known of it before it is loaded."""
        asked = [(p.task, p.id, p.question, p.answer) for p in self.questions]
        return {
            **model,
            **self.to_dict(),
            "questions": digest(asked),
            "version": __version__,
        }

    @property
    def questions(self) -> Sequence[Problem]:
        """All that is asked."""
        return self.problems


class BatchExperiment(Experiment[A]):
    """An experiment whose arms are options of one engine, many problems at a time."""

    @abstractmethod
    def settings(self, arm: A, before: Row | None) -> Settings:
        """How an arm answers a problem, whose row of an earlier stage is ``before``."""

    @abstractmethod
    def measured(self, problem: Problem, finished: FinishedRow, before: Row | None) -> Row:
        """What a row says beside its name and whether it is correct."""

    def engine(self, loaded: Any, arm: A) -> Engine:
        return loaded

    def run(self, loaded: Any, job: Job) -> Iterator[Done]:
        problems = [self.asked(job.arm)[place] for place in job.places]
        before: Sequence[Row | None] = job.before or [None] * len(problems)
        settings = [self.settings(job.arm, row) for row in before]
        for finished in answers(self.engine(loaded, job.arm), problems, settings):
            problem, answer = problems[finished.index], finished.result.answer
            row = self.new_row(job.arm, problem) | {"correct": self.grade(problem, answer)}
            row |= self.measured(problem, finished, before[finished.index])
            yield job.arm, job.places[finished.index], row


def shared(jobs: Sequence[Job], workers: int) -> list[Job]:
    """The same jobs, cut where there are too few of them for all workers to end together."""
    parts = -(-PARTS * workers // len(jobs)) if jobs else 1
    return [part for job in jobs for part in job.parts(parts)]


def draw(tasks: Sequence[Task], n: int, seed: int, split: str = "test") -> list[Problem]:
    """``n`` problems of each task; raises OptionError where a task has none to give."""
    return [p for task in tasks for p in task.problems(n, seed, split)]  # type: ignore[arg-type]


def check_split(split: str) -> None:
    """Raises OptionError."""
    if split not in SPLITS:
        raise OptionError(f"split must be {' or '.join(SPLITS)}, got {split!r}")


def digest(content: Any) -> str:
    """16 hexadecimal digits of some JSON."""
    return blake2b(json.dumps(content).encode(), digest_size=8).hexdigest()
