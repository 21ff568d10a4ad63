"""`sparing bench latent`: what thinking without words is worth, arm against arm."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from rich.progress import Progress

from sparing.evaluate.bench_latent_rows import LatentExperiment, load_arm
from sparing.evaluate.bench_latent_vectors import vectors
from sparing.evaluate.experiment import Row, Runner
from sparing.evaluate.partial_results import PartialResults
from sparing.evaluate.report import Figure
from sparing.evaluate.results import Results, joined, lower_end
from sparing.latent.ablations import Trained
from sparing.tasks.families import HARD

CONTROL, METHOD, WORDS = "cot", "latent", "words-for-latents"
BEATEN = ("pause", "no-stage-3")  # what the method is meant to be above
WATCHED = 16  # problems whose latents are looked at, of each model
COSTS = {"text_tokens": "tokens", "latent_tokens": "tokens", "steps": "steps", "seconds": "s"}
LENGTHS = {
    "hidden": "the hidden states that latents are made of",
    "embedding": "an embedding",
    "fused": "the vectors that stand at latent positions",
}


def bench_latent(
    experiment: LatentExperiment,
    part: PartialResults | None,
    progress: Progress,
    runner: Runner | None = None,
) -> tuple[list[Figure], dict[str, Any]]:
    """All figures, and the rows and vectors that they are computed from."""
    rows = experiment.collect(None, part, progress, runner)
    watched = {
        experiment.label(model): watch(experiment, model)
        for model in experiment.models
        if model.mode != "off"
    }
    raw = {"plan": experiment.to_dict(), "rows": experiment.columns(rows), "vectors": watched}
    return [*latent_figures(rows), *vector_figures(watched)], raw


def watch(experiment: LatentExperiment, model: Trained) -> dict[str, Any]:
    """The vectors of a model on the first problems of each task."""
    each = WATCHED // len(experiment.tasks) or 1
    problems = [
        problem
        for task in experiment.tasks
        for problem in [p for p in experiment.problems if p.task == task.name][:each]
    ]
    engine = load_arm(model.folder, experiment.dtype)
    return vectors(engine, problems, experiment.settings(model))


def latent_figures(rows: Mapping[Trained, Sequence[Row]]) -> list[Figure]:
    """All figures that the rows give; those of arms that are not there are absent."""
    by_arm: dict[str, dict[int, Sequence[Row]]] = {}
    for model, of_model in rows.items():
        by_arm.setdefault(model.arm, {})[model.seed] = of_model
    results = LatentResults(by_arm)
    paired = results.against(CONTROL)
    return [*results.verdict(paired), *results.accuracies(), *paired, *results.costs()]


class LatentResults(Results[str]):
    """The figures of the arms."""

    def verdict(self, paired: Sequence[Figure]) -> list[Figure]:
        """What the method claims, on hard problems where there are some."""
        group = HARD if HARD in self.groups else ""
        told = [joined(f"paired_vs_{CONTROL}", arm, group) for arm in (METHOD, WORDS)]
        figures = [lower_end(figure) for figure in paired if figure.name in told]
        beaten = [other for other in BEATEN if self.shared_seeds(METHOD, other)]
        figures += [self.minus(METHOD, other, group) for other in beaten]
        if self.shared_seeds(WORDS, CONTROL):
            what = f"{WORDS}: text tokens saved against {CONTROL}, {group or 'all'}"
            name, value = joined("text_saved", WORDS, group), self.saved(WORDS, CONTROL, group)
            figures.append(Figure(name, value, "share", "higher", what))
        return figures

    def saved(self, arm: str, other: str, group: str) -> float:
        """Of the text tokens of the other, over the seeds that both have."""
        seeds, places = self.shared_seeds(arm, other), self.groups[group]
        ours, theirs = (
            sum(self.rows[a][seed][place]["text_tokens"] for seed in seeds for place in places)
            for a in (arm, other)
        )
        return 1 - ours / theirs

    def costs(self) -> list[Figure]:
        """Means over problems and seeds."""
        return [
            Figure(
                joined(cost, arm, group),
                self.mean(arm, cost, group),
                unit,
                "lower",
                f"{arm}: {cost.replace('_', ' ')} a problem, {group or 'all'}",
            )
            for arm in self.rows
            for cost, unit in COSTS.items()
            for group in self.groups
        ]


def vector_figures(watched: Mapping[str, Mapping[str, Any]]) -> list[Figure]:
    """Lengths of hidden state, embedding and vector, and the distance between successive latents,
    of the first seed of each arm that thinks any."""
    figures = []
    first: dict[str, Mapping[str, Any]] = {}
    for name, found in watched.items():
        first.setdefault(name.partition("/")[0], found)
    for arm, found in first.items():
        for kind, of in LENGTHS.items():
            if found[kind] is not None:
                what = f"{arm}: mean length of {of}"
                figures.append(Figure(f"norm_{kind}/{arm}", found[kind], "", "lower", what))
        apart = [distance for row in found["distances"] for distance in row]
        if apart:
            what = f"{arm}: distance of a latent to the one before it, over their length"
            figures.append(Figure(f"distance/{arm}", fmean(apart), "share", "higher", what))
    return figures


def latent_cells(content: Mapping[str, Any], arms: Sequence[str]) -> list[list[str]]:
    """A header and a row an arm: how many seeds of it were trained, accuracy, the difference to cot
    over the seeds that both have, and what a problem takes."""
    found = {row["name"]: row for row in content["rows"]}
    trained = [model.partition(",")[0] for model in content["raw"]["plan"]["models"]]
    header = ["arm", "seeds", "solved", "minus cot (95 %)",
              "text tokens", "latents", "steps", "seconds"]  # fmt: skip
    rows = []
    for arm in arms:
        paired = found.get(f"paired_vs_cot/{arm}")
        minus = "" if paired is None else (
            f"{paired['value']:+.1%} ({paired['low']:+.1%} to {paired['high']:+.1%})"
        )  # fmt: skip
        solved, *costs, seconds = (found[f"{name}/{arm}"]["value"] for name in ("accuracy", *COSTS))
        shown = [f"{cost:.1f}" for cost in costs]
        rows.append(
            [arm, str(trained.count(arm)), f"{solved:.1%}", minus, *shown, f"{seconds:.3f}"]
        )
    return [header, *rows]
