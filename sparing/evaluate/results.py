"""The rows of an experiment as figures: accuracies, paired differences, means of costs."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any, Generic, Self, TypeVar

from sparing.evaluate.report import Figure
from sparing.evaluate.statistics import paired_bootstrap, wilson
from sparing.tasks.families import HARD, STANDARD

A = TypeVar("A", bound=Hashable)
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Results(Generic[A]):
    """Every arm's rows by seed of its training, in the problems' order: rows pair by place."""

    rows: Mapping[A, Mapping[int, Sequence[Row]]]

    @classmethod
    def of(cls, rows: Mapping[A, Sequence[Row]]) -> Self:
        """Of arms without a training of their own."""
        return cls({arm: {0: of_arm} for arm, of_arm in rows.items()})

    @cached_property
    def groups(self) -> dict[str, list[int]]:
        """Places of all problems (""), of each level, and of each task."""
        found: dict[str, list[int]] = {"": [], STANDARD: [], HARD: []}
        [rows, *_] = next(iter(self.rows.values())).values()
        for place, row in enumerate(rows):
            level = HARD if row["task"].endswith(f"-{HARD}") else STANDARD
            for group in ("", level, row["task"]):
                found.setdefault(group, []).append(place)
        return {group: places for group, places in found.items() if places}

    def values(self, arm: A, field: str, group: str = "") -> list[float]:
        """Problem by problem, as means over the arm's seeds."""
        rows = self.rows[arm].values()
        return [fmean(of_seed[place][field] for of_seed in rows) for place in self.groups[group]]

    def total(self, arm: A, field: str, group: str = "") -> float:
        return sum(self.values(arm, field, group))

    def mean(self, arm: A, field: str, group: str = "") -> float:
        return fmean(self.values(arm, field, group))

    def shared_seeds(self, arm: A, other: A) -> list[int]:
        """Seeds that two arms have in common; none where one of them is missing."""
        both = [self.rows.get(a, {}) for a in (arm, other)]
        return [seed for seed in both[0] if seed in both[1]] if arm != other else []

    def difference(self, arm: A, other: A, group: str) -> list[float]:
        """Problem by problem: 1 where only ``arm`` is right, -1 where only ``other`` is; a mean
        over the seeds that both have."""
        ours, theirs, both = self.rows[arm], self.rows[other], self.shared_seeds(arm, other)
        return [
            fmean(ours[seed][place]["correct"] - theirs[seed][place]["correct"] for seed in both)
            for place in self.groups[group]
        ]

    def name(self, arm: A) -> str:
        """Of an arm, in the names of figures."""
        return str(arm)

    def label(self, arm: A) -> str:
        """Of an arm, for readers."""
        return self.name(arm)

    def accuracies(self) -> list[Figure]:
        """Of every arm: over all problems, of each level and of each task."""
        return [self.accuracy(arm, group) for arm in self.rows for group in self.groups]

    def accuracy(self, arm: A, group: str) -> Figure:
        """With Wilson's interval, as if of one seed."""
        values, seeds = self.values(arm, "correct", group), len(self.rows[arm])
        low, high = wilson(round(sum(values)), len(values))
        what = f"{self.label(arm)}: solved, {group or 'all'}"
        what += f" ({seeds} seeds)" if seeds > 1 else ""
        name = joined("accuracy", self.name(arm), group)
        return Figure(name, fmean(values), "share", "higher", what, low, high)

    def minus(self, arm: A, other: A, group: str) -> Figure:
        """One arm minus another: the interval is over problems, not over trainings."""
        name = joined(f"paired_vs_{self.name(other)}", self.name(arm), group)
        what = f"{self.label(arm)} minus {self.label(other)}, {group or 'all'}"
        return difference_figure(name, self.difference(arm, other, group), what)

    def against(self, other: A) -> list[Figure]:
        """Every arm that pairs with another, minus it."""
        return [
            self.minus(arm, other, group)
            for arm in self.rows
            if self.shared_seeds(arm, other)
            for group in self.groups
        ]


def difference_figure(name: str, differences: Sequence[float], what: str) -> Figure:
    """A mean of paired differences with its bootstrap interval."""
    low, high = paired_bootstrap(differences)
    return Figure(name, fmean(differences), "share", "higher", what, low, high)


def lower_end(figure: Figure) -> Figure:
    """The lower end of a paired figure's interval, as a figure of its own."""
    assert figure.low is not None
    name = figure.name.replace("paired", "paired_low", 1)
    what = f"{figure.what}: lower end of the 95 % interval"
    return Figure(name, figure.low, figure.unit, figure.better, what)


def joined(*parts: str) -> str:
    """A figure's name, without the parts that are empty."""
    return "/".join(filter(None, parts))
