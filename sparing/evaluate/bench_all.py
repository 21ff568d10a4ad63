"""`sparing bench all`: each saving alone, each pair and all together, against other engines."""

from collections.abc import Mapping, Sequence
from typing import Any

from sparing.evaluate.baselines.start import Baselines
from sparing.evaluate.bench_all_arms import (
    BASELINES,
    DEPTH,
    ELSEWHERE,
    LLAMA_CPP,
    OFF,
    OPENVINO,
    TRANSFORMERS,
    savings,
    sparing_arms,
)
from sparing.evaluate.experiment import Row
from sparing.evaluate.headline import arm_label
from sparing.evaluate.report import Figure
from sparing.evaluate.results import Results

BUDGET, NEW_TOKENS = 768, 4096  # of prompts, by default
RATIOS = {  # of totals, over whom
    "time_vs_transformers": (TRANSFORMERS, "seconds", "seconds an answer"),
    "kv_bytes_vs_transformers": (TRANSFORMERS, "kv_bytes", "KV bytes"),
    "time_vs_openvino": (OPENVINO, "seconds", "seconds an answer"),
    "time_vs_llama_cpp": (LLAMA_CPP, "seconds", "seconds an answer"),
}
COSTS = {"text_tokens": "tokens", "latent_tokens": "tokens", "seconds": "s"}  # and their units


def headline_figures(rows: Mapping[str, Sequence[Row]]) -> list[Figure]:
    """All figures that the rows give, arm by arm. Ratios are of totals over the same problems."""
    results = HeadlineResults.of(rows)
    return [
        figure
        for arm in rows
        for figure in (*results.ratios(arm), *results.costs(arm), *results.quality(arm))
    ]


def left_out(rows: Mapping[str, Sequence[Row]], started: Baselines, latent: bool) -> dict[str, str]:
    """Arms that a reader would look for and does not find, and those without ratios; and why."""
    found = {arm: "not asked for" for arm in (*BASELINES, *sparing_arms(latent)) if arm not in rows}
    for name in found.keys() & set(ELSEWHERE):
        found[name] = started.missing(name) or found[name]
    cut = {arm: "cut short by its budget" for arm, of_arm in rows.items() if cut_short(of_arm)}
    return found | cut


class HeadlineResults(Results[str]):
    """The figures of the arms."""

    def label(self, arm: str) -> str:
        return arm_label(arm)

    def ratios(self, arm: str) -> list[Figure]:
        """Over transformers, over OpenVINO, over llama.cpp, over the same arm without drafts."""
        figures = [
            self.ratio(name, arm, other, field, what)
            for name, (other, field, what) in RATIOS.items()
            if self.compares(arm, other) and self.rows[arm][0][0][field] is not None
        ]
        if self.compares(arm, TRANSFORMERS):
            value = self.token_seconds(arm) / self.token_seconds(TRANSFORMERS)
            what = f"seconds a token, over {TRANSFORMERS}"
            figures.insert(1, figure("token_time_vs_transformers", arm, value, "x", what))
        undrafted = "+".join(part for part in arm.split("+") if part != DEPTH) or OFF
        if DEPTH in savings(arm) and self.compares(arm, undrafted):
            what = "seconds an answer"
            figures.append(self.ratio("time_vs_undrafted", arm, undrafted, "seconds", what))
        return figures

    def token_seconds(self, arm: str) -> float:
        """A token's, latent ones included: each took a slot."""
        tokens = self.total(arm, "text_tokens") + self.total(arm, "latent_tokens")
        return self.total(arm, "seconds") / tokens

    def compares(self, arm: str, other: str) -> bool:
        """Whether both are there with whole answers."""
        both = arm != other and {arm, other} <= self.rows.keys()
        return both and not any(cut_short(self.rows[a][0]) for a in (arm, other))

    def ratio(self, name: str, arm: str, other: str, field: str, what: str) -> Figure:
        value = self.total(arm, field) / self.total(other, field)
        return figure(name, arm, value, "x", f"{what}, over {arm_label(other)}")

    def costs(self, arm: str) -> list[Figure]:
        """Means over problems."""
        return [
            figure(cost, arm, self.mean(arm, cost), unit, f"{cost.replace('_', ' ')} an answer")
            for cost, unit in COSTS.items()
            if cost != "latent_tokens" or self.total(arm, cost)
        ]

    def quality(self, arm: str) -> list[Figure]:
        """Whether the text repeats itself, and how many are right where that is known."""
        what, new = "distinct runs of 4 tokens, share of all", self.mean(arm, "distinct4")
        figures = [figure("distinct4", arm, new, "share", what, better="higher")]
        if self.rows[arm][0][0]["correct"] is not None:
            figures.append(self.accuracy(arm, ""))
        return figures


def figure(
    name: str, arm: str, value: float, unit: str, what: str, better: str = "lower"
) -> Figure:
    return Figure(f"{name}/{arm}", value, unit, better, f"{arm_label(arm)}: {what}")


def cut_short(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an answer of a given length ended before it, as its budget allowed no eviction."""
    return any(row["correct"] is None and row["finish_reason"] == "budget" for row in rows)
