"""`sparing bench memory`: what each policy keeps is worth, at the same budget for all of them."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from statistics import fmean
from typing import Any

from rich.progress import Progress

from sparing.api import Engine
from sparing.engine.cache import BLOCK_SLOTS
from sparing.engine.eviction import DEFAULT_RATIO
from sparing.evaluate.bench_memory_rows import FULL, MemoryExperiment, PolicyArm, figure_name
from sparing.evaluate.bench_memory_trace import Target, trace
from sparing.evaluate.experiment import Row, Runner
from sparing.evaluate.partial_results import PartialResults
from sparing.evaluate.report import Figure
from sparing.evaluate.results import Results, difference_figure, lower_end
from sparing.memory.find import POLICIES
from sparing.options import Memory
from sparing.tasks.families import HARD, LEVELS, STANDARD

LEARNED = "learned"
EARLY = "legs"  # the family whose answer needs what was found early
COSTS = {"new_tokens": "tokens", "seconds": "s"}  # and their units
TOLD = (f"paired_vs_full/{LEARNED}/0.25/{STANDARD}", f"paired_vs_best/{LEARNED}/mean/{HARD}")


def bench_memory(
    engine: Engine,
    experiment: MemoryExperiment,
    part: PartialResults | None,
    target: Target | None,
    progress: Progress,
    runner: Runner | None = None,
) -> tuple[list[Figure], dict[str, Any]]:
    """All figures but those of the clock. ``target``: of the predictor, where a trace is to be
    drawn; the other arguments are those of ``Experiment.collect``."""
    rows = experiment.collect(engine, part, progress, runner)
    plan = experiment.to_dict() | in_effect(engine, experiment)
    raw: dict[str, Any] = {"plan": plan, "rows": experiment.columns(rows)}
    if target:
        raw["trace"] = trace(engine, experiment, rows[FULL], target)
    return memory_figures(rows), raw


def in_effect(engine: Engine, experiment: MemoryExperiment) -> dict[str, int | float]:
    """``local`` and ``selection`` of the rows: what was given, the predictor's, or the paper's."""
    given = Memory(budget=1, local=experiment.local, selection=experiment.selection)
    memory = engine.with_model_defaults(given)
    found = {"local": memory.local, "selection": memory.selection}
    return {name: DEFAULT_RATIO if value is None else value for name, value in found.items()}


def memory_figures(rows: Mapping[PolicyArm, Sequence[Row]]) -> list[Figure]:
    """All figures that the rows give; those of policies and tasks not asked for are absent."""
    results = MemoryResults.of(rows)
    paired = [*results.against(FULL), *results.against_best()]
    low = [lower_end(figure) for figure in paired if figure.name in TOLD]
    return [*low, *results.accuracies(), *paired, *results.costs()]


class MemoryResults(Results[PolicyArm]):
    """The figures of the policies."""

    @cached_property
    def spared(self) -> list[PolicyArm]:
        """All arms but the full cache."""
        return [arm for arm in self.rows if arm != FULL]

    def name(self, arm: PolicyArm) -> str:
        return figure_name(arm)

    def label(self, arm: PolicyArm) -> str:
        return "full cache" if arm == FULL else f"{policy_label(arm[0])} at {arm[1]:g}"

    def against_best(self) -> list[Figure]:
        """Learned minus the best other policy, which is chosen anew for each share and group.

        The mean over shares is taken problem by problem: the same problem at three shares counts
        once.
        """
        groups = [group for group in (STANDARD, HARD, EARLY) if group in self.groups]
        return [figure for group in groups for figure in self._against_best(group)]

    def _against_best(self, group: str) -> list[Figure]:
        figures, differences, names = [], [], []
        for share in dict.fromkeys(share for _, share in self.spared):
            best = self.best_other(share, group)
            if best is None:
                continue
            differences.append(self.difference((LEARNED, share), best, group))
            names.append(best[0])
            what = f"learned minus {policy_label(best[0])}, the best other at {share:g}, {group}"
            name = f"paired_vs_best/learned/{share:g}/{group}"
            figures.append(difference_figure(name, differences[-1], what))
        if differences:
            means = [fmean(of_problem) for of_problem in zip(*differences, strict=True)]
            what = f"learned minus the best other of each share ({', '.join(names)}), mean, {group}"
            figures.append(difference_figure(f"paired_vs_best/learned/mean/{group}", means, what))
        return figures

    def best_other(self, share: float, group: str) -> PolicyArm | None:
        """The most accurate policy other than learned; None without another, or without learned."""
        if (LEARNED, share) not in self.rows:
            return None
        others = [arm for arm in self.spared if arm[1] == share and arm[0] != LEARNED]
        return max(others, key=lambda arm: self.total(arm, "correct", group), default=None)

    def costs(self) -> list[Figure]:
        """Tokens and seconds of all problems over the number solved; cache over the full run's."""
        figures = []
        for arm in self.rows:
            solved = self.total(arm, "correct")
            for cost, unit in COSTS.items() if solved else ():
                shown = cost.removeprefix("new_")
                name, what = f"{shown}_per_solved/{self.name(arm)}", f"{shown} a solved problem"
                value = self.total(arm, cost) / solved
                figures.append(Figure(name, value, unit, "lower", f"{self.label(arm)}: {what}"))
        return figures + [self.kv_share(arm) for arm in self.spared]

    def kv_share(self, arm: PolicyArm) -> Figure:
        share = fmean(row["kv_bytes_peak"] / row["kv_bytes_full"] for row in self.rows[arm][0])
        what = f"KV bytes over the full run's (blocks of {BLOCK_SLOTS} slots), mean"
        name = f"kv_share/{self.name(arm)}"
        return Figure(name, share, "share", "lower", f"{self.label(arm)}: {what}")


def policy_label(policy: str) -> str:
    """Its name, and where it is not quite what its paper describes."""
    uniform = policy in POLICIES and POLICIES[policy].per_head_in_paper
    return f"{policy} (uniform variant)" if uniform else policy


def memory_cells(content: Mapping[str, Any]) -> list[list[str]]:
    """A header, a row for the full cache and one a policy; columns: share by share its levels."""
    found = {row["name"]: row["value"] for row in content["rows"]}
    plan = content["raw"]["plan"]
    levels = [level for level in LEVELS if f"accuracy/full/{level}" in found]
    columns = [(f"{share:g}", level) for share in plan["shares"] for level in levels]
    header = ["policy", *(f"{level} at {share}" for share, level in columns)]
    full = ["full cache", *(f"{found[f'accuracy/full/{level}']:.1%}" for _, level in columns)]
    rows = [
        [policy_label(p), *(f"{found[f'accuracy/{p}/{s}/{level}']:.1%}" for s, level in columns)]
        for p in plan["policies"]
    ]
    return [header, full, *rows]
