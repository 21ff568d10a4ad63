"""The rows of `sparing bench all`: every problem by every arm, in turns."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sparing.errors import OptionError
from sparing.evaluate.batch_generate import Settings, answers
from sparing.evaluate.bench_all_arms import (
    DEPTH,
    MEMORY,
    ArmAnswer,
    ArmQuestion,
    LoadedArms,
    savings,
)
from sparing.evaluate.bench_memory_rows import budget_of
from sparing.evaluate.experiment import Done, Experiment, Job, Row, Rows, digest
from sparing.options import Depth, Memory, Sampling
from sparing.tasks.problem import Problem, Task

TEMPERATURE, TOP_P = 0.8, 0.95
GRAM = 4  # tokens; the share of new ones tells whether a text repeats itself
LENGTH = ""  # the arm of rows that only say how much is thought with everything kept
WARM_UP_TOKENS = 16
WARM_DRAFTS = 512  # tokens a question: drafters need more to warm up


@dataclass(frozen=True)
class SavingsExperiment(Experiment[str]):
    """``measured`` problems by each of ``chosen`` arms, which get warm on others.

    ``tasks``: whose problems they are. With tasks, answers go to their end within ``new_tokens``
    and are graded; without, all have ``new_tokens``.
    ``budget``: slots, or a share of what is thought with everything kept.
    ``seed``: of the noise.

    Raises OptionError.
    """

    chosen: Sequence[str]
    measured: Sequence[Problem]
    warm_up: Sequence[Problem]
    tasks: Sequence[Task]
    budget: int | float
    new_tokens: int
    greedy: bool = False
    seed: int = 0

    keys = ("arm",)
    mixed = True
    reported = (
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
        "tokens",  # their hash: drafts must not change it
    )

    def __post_init__(self) -> None:
        Memory(budget=self.budget)

    @property
    def problems(self) -> Sequence[Problem]:
        return self.measured

    @property
    def questions(self) -> list[Problem]:
        return [*self.measured, *self.warm_up]

    @property
    def arms(self) -> Sequence[str]:
        return self.chosen

    @property
    def needs_lengths(self) -> bool:
        """Whether a budget depends on how much is thought of a problem."""
        spares = any(MEMORY in savings(arm) for arm in self.chosen)
        return spares and isinstance(self.budget, float) and bool(self.tasks)

    @property
    def stages(self) -> list[Sequence[str]]:
        return [[LENGTH], self.chosen] if self.needs_lengths else [self.chosen]

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

    def key(self, arm: str) -> tuple[str]:
        return (arm,)

    def label(self, arm: str) -> str:
        return arm or "lengths of thoughts"

    def asked(self, arm: str) -> Sequence[Problem]:
        return self.questions if arm == LENGTH else self.measured

    def memory(self, question: int, thinking: int) -> Memory:
        """Under the model's own policy."""
        if isinstance(self.budget, int):
            return Memory(budget=self.budget)
        return Memory(budget=budget_of(self.budget, question, thinking))

    def to_dict(self) -> dict[str, Any]:
        return {
            "tasks": [task.name for task in self.tasks],
            "problems": [[p.task, p.id] for p in self.measured],
            "arms": list(self.chosen),
            **{name: getattr(self, name) for name in ("budget", "new_tokens", "greedy", "seed")},
            **({} if self.greedy else {"temperature": TEMPERATURE, "top_p": TOP_P}),
        }

    def refuse(self, loaded: LoadedArms) -> None:
        """Raise what cannot be asked, or not under a budget that is known beforehand."""
        counted = isinstance(self.budget, int) and any(MEMORY in savings(a) for a in self.chosen)
        memory = self.memory(0, 0) if counted else Memory()
        settings = replace(self.settings, memory=memory, batch_size=1)
        answers(loaded.engine, self.questions, settings, [])

    def before(self, arm: str, places: Sequence[int], found: Rows) -> list[Row]:
        """The lengths of a problem's thought and of the warm-up problems' thoughts."""
        if arm == LENGTH or not self.needs_lengths:
            return []
        problems = [*(self.measured[place] for place in places), *self.warm_up]
        return [found[self.name(LENGTH, problem)] for problem in problems]

    def jobs(self, arms: Sequence[str], found: Rows) -> list[Job]:
        """Problem by problem all arms in turns, another one first each time."""
        if LENGTH in arms:
            return super().jobs(arms, found)
        return [
            Job(arm, [place], self.before(arm, [place], found))
            for place, problem in enumerate(self.measured)
            for arm in rotated(arms, place)
            if self.name(arm, problem) not in found
        ]

    def run(self, loaded: LoadedArms, job: Job) -> Iterator[Done]:
        if job.arm == LENGTH:
            yield from self.lengths(loaded, job)
            return
        thinking = [row["thinking_tokens"] for row in job.before]
        if job.arm not in loaded.warm:
            self.get_warm(loaded, job.arm, thinking[1:])
            loaded.warm.add(job.arm)
        [place] = job.places
        problem = self.measured[place]
        question = self.question(loaded, problem, self.new_tokens, thinking[:1])
        yield job.arm, place, self.row(job.arm, problem, loaded.arms[job.arm](question))

    def lengths(self, loaded: LoadedArms, job: Job) -> Iterator[Done]:
        """How much is thought of each problem with everything kept."""
        problems = [self.questions[place] for place in job.places]
        for finished in answers(loaded.engine, problems, self.settings):
            thinking = {"thinking_tokens": finished.evictable_tokens}
            row = self.new_row(LENGTH, problems[finished.index]) | thinking
            yield LENGTH, job.places[finished.index], row

    def get_warm(self, loaded: LoadedArms, name: str, thinking: Sequence[int] = ()) -> None:
        """A few tokens by an arm, and where it drafts some of each question."""
        drafts, arm = DEPTH in savings(name), loaded.arms[name]
        most = min(WARM_DRAFTS if drafts else WARM_UP_TOKENS, self.new_tokens)
        for at, problem in enumerate(self.warm_up if drafts else self.warm_up[:1]):
            arm(self.question(loaded, problem, most, thinking[at : at + 1]))
        arm.remember()

    def question(
        self, loaded: LoadedArms, problem: Problem, most: int, thinking: Sequence[int] = ()
    ) -> ArmQuestion:
        """A problem with its noise and ``most`` new tokens; ``thinking``: its length, if known."""
        chat = loaded.engine.chat
        prompt = chat.question(problem.question)
        noise = {"seed": self.settings.noise_seed(problem), "max_new_tokens": most}
        sampling = Sampling(**self.settings.sampling.model_dump() | noise)
        [length] = thinking or [self.new_tokens]
        return ArmQuestion(prompt, sampling, self.memory(len(chat.encode(prompt).ids), length))

    def row(self, arm: str, problem: Problem, answer: ArmAnswer) -> Row:
        """A problem by an arm; ``correct`` is None where there is no task to grade it."""
        return {
            **self.new_row(arm, problem),
            "correct": self.grade(problem, answer.answer) if self.tasks else None,
            "text_tokens": len(answer.ids),
            "seconds": round(answer.seconds, 4),
            "kv_bytes": answer.kv_bytes,
            "distinct4": distinct(answer.ids),
            "tokens": digest(answer.ids),
            "finish_reason": answer.finish_reason,
            **answer.more,
        }


def draw_with_warm_up(
    tasks: Sequence[Task], n: int, seed: int
) -> tuple[list[Problem], list[Problem]]:
    """``n`` problems of each task, and one more of each as a warm-up; raises OptionError."""
    problems: list[Problem] = []
    warm_up: list[Problem] = []
    for task in tasks:
        *measured, last = task.problems(n + 1, seed)
        if not measured:
            raise OptionError(f"{task.name} must have 2 problems or more, got 1: one is to warm up")
        problems += measured
        warm_up.append(last)
    return problems, warm_up


def prompt_problems(
    prompts: Sequence[str], n: int, others: Sequence[str]
) -> tuple[list[Problem], list[Problem]]:
    """``n`` prompts, in turn where there are fewer, each time with other noise; and as a warm-up
    the ``others`` that are not among them."""
    asked = [prompts[at % len(prompts)] for at in range(n)]
    named = {"prompts": asked, "warm-up": [prompt for prompt in others if prompt not in asked]}
    measured, warm_up = (
        [Problem(name, i, prompt, "") for i, prompt in enumerate(some, 1)]
        for name, some in named.items()
    )
    return measured, warm_up


def rotated(arms: Sequence[str], by: int) -> list[str]:
    by %= len(arms)
    return [*arms[by:], *arms[:by]]


def distinct(ids: Sequence[int], size: int = GRAM) -> float:
    """Of all runs of ``size`` tokens, the share that is there for the first time: text in a loop
    comes close to 0. 1 where there is no such run."""
    grams = [tuple(ids[at : at + size]) for at in range(len(ids) - size + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0
