"""The rows of `sparing bench memory`: every problem with all kept, and under each policy."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from sparing.api import Engine
from sparing.errors import OptionError
from sparing.evaluate.batch_generate import FinishedRow, Settings, answers
from sparing.evaluate.experiment import BatchExperiment, Job, Row, Rows, check_split, draw
from sparing.memory.find import POLICIES, PREDICTED, find_policy
from sparing.options import Depth, Memory, Sampling, known_policies
from sparing.tasks.problem import Problem, Task

PolicyArm = tuple[str, float]  # a policy at a share
FULL: PolicyArm = ("full", 1.0)
LEAST_ROOM = 8  # slots beside the question, however short the thought


@dataclass(frozen=True)
class MemoryExperiment(BatchExperiment[PolicyArm]):
    """``n`` problems of each task with everything kept, and with each policy at each share.

    ``local``, ``selection``: as in ``Memory``, the same for every policy. Raises OptionError.
    """

    tasks: Sequence[Task]
    n: int
    seed: int
    policies: Sequence[str]
    shares: Sequence[float]
    split: str = "test"
    local: int | float | None = None
    selection: int | float | None = None
    max_new_tokens: int = 1400
    batch_size: int = 64

    keys = ("policy", "share")
    reported = (
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

    def __post_init__(self) -> None:
        known = [name for name in known_policies() if name not in ("auto", "full")]
        if unknown := [name for name in self.policies if name not in known]:
            raise OptionError(f"policies must be among {', '.join(known)}, got {unknown[0]!r}")
        if wrong := [share for share in self.shares if not 0 < share <= 1]:
            raise OptionError(f"shares must lie in (0, 1], got {wrong[0]:g}")
        check_split(self.split)
        if isinstance(self.local, float) and self.local == 1:
            raise OptionError("local must leave room for other slots, got 1.0; pass 0.9 or less")
        for policy in self.policies:
            self._memory(policy, LEAST_ROOM)

    @cached_property
    def problems(self) -> list[Problem]:
        return draw(self.tasks, self.n, self.seed, self.split)

    @property
    def arms(self) -> list[PolicyArm]:
        """The full cache, then each share under each policy."""
        return [FULL, *((policy, share) for share in self.shares for policy in self.policies)]

    @property
    def stages(self) -> list[list[PolicyArm]]:
        """A budget depends on how long the full cache's thought is."""
        return [[FULL], self.arms[1:]]

    def key(self, arm: PolicyArm) -> PolicyArm:
        return arm

    def label(self, arm: PolicyArm) -> str:
        return figure_name(arm)

    def before(self, arm: PolicyArm, places: Sequence[int], found: Rows) -> list[Row]:
        """The full cache's rows."""
        problems = [self.problems[place] for place in places]
        return [] if arm == FULL else [found[self.name(FULL, problem)] for problem in problems]

    def jobs(self, arms: Sequence[PolicyArm], found: Rows) -> list[Job]:
        """Long thoughts come first: rows that end together leave no batch half empty."""
        return [longest_first(job) for job in super().jobs(arms, found)]

    def refuse(self, loaded: Engine) -> None:
        answers(loaded, self.problems, self.settings(FULL, None), [])

    def settings(self, arm: PolicyArm, before: Row | None) -> Settings:
        """Greedy, without drafts."""
        sampling = Sampling(temperature=0, max_new_tokens=self.max_new_tokens)
        settings = Settings(depth=Depth(draft="off"), sampling=sampling, batch_size=self.batch_size)
        if before is None:
            return settings
        memory = self.memory(arm, before["prompt_tokens"], before["thinking_tokens"])
        return replace(settings, memory=memory)

    def memory(self, arm: PolicyArm, question: int, thinking: int) -> Memory:
        """The budget of a problem: its question and a share of what the full run thought."""
        policy, share = arm
        return self._memory(policy, budget_of(share, question, thinking, self.local))

    def _memory(self, policy: str, budget: int) -> Memory:
        return Memory(budget=budget, local=self.local, selection=self.selection, policy=policy)

    def measured(self, problem: Problem, finished: FinishedRow, before: Row | None) -> Row:
        """``kv_bytes_full``: of the full cache's run on the same problem."""
        result, stats = finished.result, finished.result.stats
        kv_bytes = finished.kv_bytes_peak
        return {
            "prompt_tokens": len(result.prompt_token_ids),
            "thinking_tokens": finished.evictable_tokens,
            "new_tokens": stats.new_tokens,
            "seconds": round(finished.seconds, 4),
            "kv_bytes_peak": kv_bytes,
            "kv_bytes_full": before["kv_bytes_peak"] if before else kv_bytes,
            "evictions": stats.evictions,
            "finish_reason": result.finish_reason,
        }

    def to_dict(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"tasks": [task.name for task in self.tasks]}


def figure_name(arm: PolicyArm) -> str:
    """As in ``learned/0.25``."""
    return "full" if arm == FULL else f"{arm[0]}/{arm[1]:g}"


def longest_first(job: Job) -> Job:
    """A job sorted by the thoughts of ``before``, where it has any."""
    if not job.before:
        return job
    pairs = zip(job.places, job.before, strict=True)
    ordered = sorted(pairs, key=lambda pair: -pair[1]["thinking_tokens"])
    return Job(job.arm, [place for place, _ in ordered], [row for _, row in ordered])


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

    Raises OptionError for a policy whose predictor is missing.
    """
    if names is None:
        return [name for name in POLICIES if predicts or name not in PREDICTED]
    for name in names:
        if name in PREDICTED:
            memory = Memory(budget=LEAST_ROOM, policy=name)
            find_policy(memory, None, (0,) if predicts else None)
    return list(dict.fromkeys(names))
