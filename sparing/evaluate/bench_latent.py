"""`sparing bench latent`: what thinking without words is worth, arm against arm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean
from typing import Any

from rich.progress import Progress

from sparing.evaluate.bench_latent_rows import Plan, Row, Runner, collect, columns, engine_of
from sparing.evaluate.bench_latent_vectors import vectors
from sparing.evaluate.bench_memory import difference_figure
from sparing.evaluate.partial_results import PartialResults
from sparing.evaluate.report import Figure
from sparing.evaluate.statistics import wilson
from sparing.latent.ablations import Trained
from sparing.tasks.families import HARD, STANDARD

CONTROL = "cot"
WATCHED = 16  # problems whose latents are looked at, of each model
COSTS = (("text_tokens", "tokens"), ("latent_tokens", "tokens"), ("steps", "steps"),
         ("seconds", "s"))  # fmt: skip
LOSS_BARS = {"latent": -0.02, "words-for-latents": -0.03}  # lower ends, against the control
BEATEN = ("pause", "no-stage-3")  # what the method is meant to be above
SAVED = {"words-for-latents": 0.3}  # of the control's text tokens


def bench_latent(
    plan: Plan, part: PartialResults | None, progress: Progress, runner: Runner | None = None
) -> tuple[list[Figure], dict[str, Any]]:
    """All figures, and the rows and vectors that they are computed from."""
    rows = collect(plan, part, progress, runner)
    watched = {
        f"{model.arm}/{model.seed}": watch(plan, model)
        for model in plan.models
        if model.mode != "off"
    }
    raw = {"plan": plan.to_dict(), "rows": columns(rows), "vectors": watched}
    return [*latent_figures(rows), *vector_figures(watched)], raw


def watch(plan: Plan, model: Trained) -> dict[str, Any]:
    """The vectors of a model on the first problems of each of the plan's tasks."""
    each = WATCHED // len(plan.tasks) or 1
    problems = [
        problem
        for task in plan.tasks
        for problem in [p for p in plan.problems if p.task == task.name][:each]
    ]
    return vectors(engine_of(model.folder, plan.dtype), problems, plan.settings(model))


@dataclass(frozen=True)
class Runs:
    """Every model's rows, each in the problems' order: rows pair by their place."""

    rows: Mapping[Trained, Sequence[Row]]

    @cached_property
    def arms(self) -> list[str]:
        return list(dict.fromkeys(model.arm for model in self.rows))

    @cached_property
    def groups(self) -> dict[str, list[int]]:
        """Places of all problems (""), of each level where there are two, and of each task."""
        found: dict[str, list[int]] = {"": [], STANDARD: [], HARD: []}
        for place, row in enumerate(next(iter(self.rows.values()))):
            level = HARD if row["task"].endswith(f"-{HARD}") else STANDARD
            for group in ("", level, row["task"]):
                found.setdefault(group, []).append(place)
        return {group: places for group, places in found.items() if places}

    def seeds(self, arm: str) -> dict[int, Sequence[Row]]:
        return {model.seed: rows for model, rows in self.rows.items() if model.arm == arm}

    def values(self, arm: str, field: str, group: str) -> list[float]:
        """Problem by problem, as means over the arm's seeds."""
        rows = self.seeds(arm).values()
        return [mean(of_seed[place][field] for of_seed in rows) for place in self.groups[group]]

    def difference(self, arm: str, other: str, group: str) -> list[float]:
        """Problem by problem: the mean over the seeds that both have of one minus the other."""
        ours, theirs = self.seeds(arm), self.seeds(other)
        both = [seed for seed in ours if seed in theirs]
        return [
            mean(ours[s][place]["correct"] - theirs[s][place]["correct"] for s in both)
            for place in self.groups[group]
        ]

    def saved(self, arm: str, other: str, group: str) -> float:
        """Of the text tokens of the other, over the seeds that both have."""
        ours, theirs = self.seeds(arm), self.seeds(other)
        both = [seed for seed in ours if seed in theirs]
        totals = [
            sum(rows[s][place]["text_tokens"] for s in both for place in self.groups[group])
            for rows in (ours, theirs)
        ]
        return 1 - totals[0] / totals[1]

    def pairs(self, arm: str, other: str) -> bool:
        """Whether both are there, for a seed at least."""
        return arm != other and bool(self.seeds(arm).keys() & self.seeds(other).keys())


def latent_figures(rows: Mapping[Trained, Sequence[Row]]) -> list[Figure]:
    """All figures that the rows give; those of arms that are not there are absent."""
    runs = Runs(rows)
    paired = against(runs, CONTROL, "cot")
    return [*barred(runs, paired), *accuracy(runs), *paired, *costs(runs)]


def accuracy(runs: Runs) -> list[Figure]:
    """Of every arm, the mean over its seeds; Wilson's interval as if of one seed."""
    figures = []
    for arm in runs.arms:
        for group in runs.groups:
            values = runs.values(arm, "correct", group)
            low, high = wilson(round(sum(values)), len(values))
            what = f"{arm}: solved, {group or 'all'} ({said(len(runs.seeds(arm)))})"
            name = named("accuracy", arm, group)
            figures.append(
                Figure(name, mean(values), "share", "higher", what=what, low=low, high=high)
            )
    return figures


def against(runs: Runs, other: str, shortly: str) -> list[Figure]:
    """Every arm minus ``other``: the paired interval is over problems, not over trainings."""
    return [
        difference_figure(
            named(f"paired_vs_{shortly}", arm, group),
            runs.difference(arm, other, group),
            f"{arm} minus {other}, {group or 'all'}",
        )
        for arm in runs.arms
        if runs.pairs(arm, other)
        for group in runs.groups
    ]


def barred(runs: Runs, paired: Sequence[Figure]) -> list[Figure]:
    """What was promised, on hard problems where there are some."""
    group = HARD if HARD in runs.groups else ""
    by_name = {figure.name: figure for figure in paired}
    figures = []
    for arm, bar in LOSS_BARS.items():
        found = by_name.get(named("paired_vs_cot", arm, group))
        if found is not None and found.low is not None:
            name = found.name.replace("paired", "paired_low", 1)
            what = f"{found.what}: lower end of the 95 % interval"
            figures.append(Figure(name, found.low, "share", "higher", bar, what))
    for other in BEATEN:
        if runs.pairs("latent", other):
            name = named(f"paired_vs_{other}", "latent", group)
            what = f"latent minus {other}, {group or 'all'}"
            figures.append(
                difference_figure(name, runs.difference("latent", other, group), what, 0.0)
            )
    for arm, bar in SAVED.items():
        if runs.pairs(arm, CONTROL):
            saved = runs.saved(arm, CONTROL, group)
            what = f"{arm}: text tokens saved against cot, {group or 'all'}"
            name = named("text_saved", arm, group)
            figures.append(Figure(name, saved, "share", "higher", bar, what))
    return figures


def costs(runs: Runs) -> list[Figure]:
    """Means over problems and seeds."""
    return [
        Figure(
            named(cost, arm, group),
            mean(runs.values(arm, cost, group)),
            unit,
            "lower",
            what=f"{arm}: {cost.replace('_', ' ')} a problem, {group or 'all'}",
        )
        for arm in runs.arms
        for cost, unit in COSTS
        for group in runs.groups
    ]


def vector_figures(watched: Mapping[str, Mapping[str, Any]]) -> list[Figure]:
    """Lengths of hidden state, embedding and vector, and how far successive latents are apart, of
    the first seed of each arm that thinks any."""
    figures = []
    seen: set[str] = set()
    for name, found in watched.items():
        arm = name.partition("/")[0]
        if arm in seen:
            continue
        seen.add(arm)
        for kind in ("hidden", "embedding", "fused"):
            if found[kind] is not None:
                what = f"{arm}: mean length of {LENGTHS[kind]}"
                figures.append(Figure(f"norm_{kind}/{arm}", found[kind], "", "lower", what=what))
        apart = [d for row in found["distances"] for d in row]
        if apart:
            what = f"{arm}: distance of a latent to the one before it, over their length"
            figures.append(Figure(f"distance/{arm}", mean(apart), "share", "higher", what=what))
    return figures


LENGTHS = {
    "hidden": "the hidden states that latents are made of",
    "embedding": "an embedding",
    "fused": "the vectors that stand at latent positions",
}


def named(*parts: str) -> str:
    return "/".join(filter(None, parts))


def said(seeds: int) -> str:
    return "one seed" if seeds == 1 else f"{seeds} seeds"
