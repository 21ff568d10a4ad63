"""`sparing bench memory`: what each policy keeps is worth, at the same budget for all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean
from typing import Any

from rich.progress import Progress

from sparing.api import Engine
from sparing.engine.cache import BLOCK_SLOTS
from sparing.engine.eviction import DEFAULT_RATIO
from sparing.evaluate.bench_memory_rows import (
    FULL,
    Arm,
    Plan,
    Row,
    Runner,
    arm_name,
    collect,
    columns,
)
from sparing.evaluate.bench_memory_trace import Target, trace
from sparing.evaluate.partial_results import PartialResults
from sparing.evaluate.report import Figure
from sparing.evaluate.statistics import paired_bootstrap, wilson
from sparing.evaluate.tables import policy_label
from sparing.options import Memory
from sparing.tasks.families import HARD, STANDARD

LEARNED = "learned"
EARLY = "legs"  # the family whose answer needs what was found early
LOSS_BAR, LOSS_SHARE = -0.03, 0.25  # what learned may lose to the full cache, at which share
GAIN_BAR = 0.0  # over the best other on hard tasks, in the mean over shares
EARLY_BAR, EARLY_SHARE = 0.10, 0.1  # over the best other where early results are needed


def bench_memory(
    engine: Engine,
    plan: Plan,
    part: PartialResults | None,
    target: Target | None,
    progress: Progress,
    runner: Runner | None = None,
) -> tuple[list[Figure], dict[str, Any]]:
    """All figures but those of the clock. ``part``: rows of an unfinished run, which takes the
    others as they are done; ``target``: of the predictor, where a trace is to be drawn; ``runner``:
    see ``collect``.
    """
    rows = collect(engine, plan, part, progress, runner)
    raw: dict[str, Any] = {"plan": plan.to_dict() | in_effect(engine, plan), "rows": columns(rows)}
    if target:
        raw["trace"] = trace(engine, plan, rows[FULL], target)
    return memory_figures(rows), raw


def in_effect(engine: Engine, plan: Plan) -> dict[str, int | float]:
    """``local`` and ``selection`` of the rows: what was given, the predictor's, or the paper's."""
    memory = engine.with_model_defaults(
        Memory(budget=1, local=plan.local, selection=plan.selection)
    )
    given = {"local": memory.local, "selection": memory.selection}
    return {name: DEFAULT_RATIO if value is None else value for name, value in given.items()}


@dataclass(frozen=True)
class Runs:
    """Every arm's rows, each in the problems' order: rows pair by their place."""

    rows: dict[Arm, list[Row]]

    @cached_property
    def groups(self) -> dict[str, list[int]]:
        """Places of all problems (""), of the standard and of the hard ones, and of each task."""
        found: dict[str, list[int]] = {"": [], STANDARD: [], HARD: []}
        for place, row in enumerate(self.rows[FULL]):
            level = HARD if row["task"].endswith(f"-{HARD}") else STANDARD
            for group in ("", level, row["task"]):
                found.setdefault(group, []).append(place)
        return {group: places for group, places in found.items() if places}

    @cached_property
    def spared(self) -> list[Arm]:
        """All arms but the full cache."""
        return [arm for arm in self.rows if arm != FULL]

    @cached_property
    def shares(self) -> list[float]:
        return list(dict.fromkeys(share for _, share in self.spared))

    def correct(self, arm: Arm, group: str) -> list[bool]:
        return [self.rows[arm][place]["correct"] for place in self.groups[group]]

    def difference(self, arm: Arm, other: Arm, group: str) -> list[int]:
        """Problem by problem: 1 where only ``arm`` is right, -1 where only ``other`` is."""
        pairs = zip(self.correct(arm, group), self.correct(other, group), strict=True)
        return [a - b for a, b in pairs]

    def best_other(self, share: float, group: str) -> Arm | None:
        """The most accurate policy but learned; None where there is none, or no learned."""
        if (LEARNED, share) not in self.rows:
            return None
        others = [arm for arm in self.spared if arm[1] == share and arm[0] != LEARNED]
        return max(others, key=lambda arm: sum(self.correct(arm, group)), default=None)


def memory_figures(rows: dict[Arm, list[Row]]) -> list[Figure]:
    """All figures that the rows give; those of policies and tasks not asked for are absent."""
    runs = Runs(rows)
    paired = [*against_full(runs), *against_best(runs)]
    return [*barred(paired), *accuracy(runs), *paired, *costs(runs)]


def accuracy(runs: Runs) -> list[Figure]:
    """Of every arm: over all tasks, a level's, and each, with Wilson intervals."""
    figures = []
    for arm in runs.rows:
        for group in runs.groups:
            correct = runs.correct(arm, group)
            low, high = wilson(sum(correct), len(correct))
            name, what = "/".join(filter(None, ("accuracy", arm_name(arm), group))), said(arm)
            figures.append(
                Figure(
                    name,
                    mean(correct),
                    "share",
                    "higher",
                    what=f"{what}: solved, {group or 'all'}",
                    low=low,
                    high=high,
                )
            )
    return figures


def against_full(runs: Runs) -> list[Figure]:
    """Every policy minus the full cache."""
    return [
        difference_figure(
            "/".join(filter(None, ("paired_vs_full", arm_name(arm), group))),
            runs.difference(arm, FULL, group),
            f"{said(arm)}, minus full, {group or 'all'}",
        )
        for arm in runs.spared
        for group in runs.groups
    ]


def against_best(runs: Runs) -> list[Figure]:
    """Learned minus the best other policy, which is chosen anew for each share and group.

    The mean over shares is taken problem by problem: the same problem at three shares counts once.
    """
    figures = []
    for group in (g for g in (STANDARD, HARD, EARLY) if g in runs.groups):
        differences, names = [], []
        for share in runs.shares:
            best = runs.best_other(share, group)
            if best is None:
                continue
            differences.append(runs.difference((LEARNED, share), best, group))
            names.append(best[0])
            bar = EARLY_BAR if (group, share) == (EARLY, EARLY_SHARE) else None
            what = f"learned minus {policy_label(best[0])}, the best other at {share:g}, {group}"
            name = f"paired_vs_best/learned/{share:g}/{group}"
            figures.append(difference_figure(name, differences[-1], what, bar))
        if differences:
            means = [mean(of_problem) for of_problem in zip(*differences, strict=True)]
            what = f"learned minus the best other of each share ({', '.join(names)}), mean, {group}"
            name = f"paired_vs_best/learned/mean/{group}"
            figures.append(difference_figure(name, means, what))
    return figures


def difference_figure(
    name: str, differences: Sequence[float], what: str, bar: float | None = None
) -> Figure:
    """A mean of paired differences with its bootstrap interval."""
    low, high = paired_bootstrap(differences)
    return Figure(name, mean(differences), "share", "higher", bar, what, low, high)


def barred(paired: Sequence[Figure]) -> list[Figure]:
    """The lower ends of the intervals that something was promised of."""
    bars = {
        f"paired_vs_full/learned/{LOSS_SHARE:g}/{STANDARD}": LOSS_BAR,
        f"paired_vs_best/learned/mean/{HARD}": GAIN_BAR,
    }
    return [
        Figure(
            f.name.replace("paired", "paired_low", 1),
            f.low,
            f.unit,
            f.better,
            bars[f.name],
            f"{f.what}: lower end of the 95 % interval",
        )
        for f in paired
        if f.name in bars and f.low is not None
    ]


def costs(runs: Runs) -> list[Figure]:
    """Tokens and seconds of all problems over the number solved; cache over the full run's."""
    figures = []
    for arm, rows in runs.rows.items():
        solved = sum(row["correct"] for row in rows)
        for cost, unit in (("new_tokens", "tokens"), ("seconds", "s")):
            if solved:
                name = f"{cost.removeprefix('new_')}_per_solved/{arm_name(arm)}"
                per_solved = sum(row[cost] for row in rows) / solved
                what = f"{said(arm)}: {cost.removeprefix('new_')} a solved problem"
                figures.append(Figure(name, per_solved, unit, "lower", what=what))
    for arm in runs.spared:
        share = mean(row["kv_bytes_peak"] / row["kv_bytes_full"] for row in runs.rows[arm])
        what = f"{said(arm)}: KV bytes over the full run's (blocks of {BLOCK_SLOTS} slots), mean"
        figures.append(Figure(f"kv_share/{arm_name(arm)}", share, "share", "lower", what=what))
    return figures


def said(arm: Arm) -> str:
    return "full cache" if arm == FULL else f"{policy_label(arm[0])} at {arm[1]:g}"
