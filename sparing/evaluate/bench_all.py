"""`sparing bench all`: each saving alone, each pair and all together, against other engines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

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
from sparing.evaluate.bench_all_rows import Plan, Row
from sparing.evaluate.report import Figure
from sparing.evaluate.statistics import wilson
from sparing.evaluate.tables_headline import arm_label

BUDGET, NEW_TOKENS = 768, 4096  # what was promised of smollm2, sampled
BARS = {
    "smollm2": {
        "time_vs_transformers/memory": 0.333,  # three times as fast
        "kv_bytes_vs_transformers/memory": 0.2,
        "time_vs_undrafted/memory+depth": 1.0,
        "time_vs_openvino/memory": 0.666,  # one and a half times as fast
        "time_vs_openvino/memory+depth": 0.666,
    }
}

RATIOS = {  # of totals, over whom
    "time_vs_transformers": (TRANSFORMERS, "seconds", "seconds an answer"),
    "kv_bytes_vs_transformers": (TRANSFORMERS, "kv_bytes", "KV bytes"),
    "time_vs_openvino": (OPENVINO, "seconds", "seconds an answer"),
    "time_vs_llama_cpp": (LLAMA_CPP, "seconds", "seconds an answer"),
}


def promised(model: str, plan: Plan) -> Mapping[str, float]:
    """The bars, by name of a figure, where the plan is what they were set for."""
    same = (plan.budget, plan.new_tokens, plan.greedy) == (BUDGET, NEW_TOKENS, False)
    return BARS.get(model, {}) if same and not plan.tasks else {}


def headline_figures(rows: Mapping[str, Sequence[Row]], bars: Mapping[str, float]) -> list[Figure]:
    """All figures that the rows give, arm by arm. Ratios are of totals over the same problems."""
    runs = Runs(rows, bars)
    return [
        figure
        for arm in rows
        for figure in (*runs.ratios(arm), *runs.costs(arm), *runs.quality(arm))
    ]


def left_out(rows: Mapping[str, Sequence[Row]], started: Baselines, latent: bool) -> dict[str, str]:
    """Arms that a reader would look for and does not find, and those without ratios; and why."""
    found = {arm: "not asked for" for arm in (*BASELINES, *sparing_arms(latent)) if arm not in rows}
    for name in found.keys() & set(ELSEWHERE):
        found[name] = started.missing(name) or found[name]
    cut = {arm: "cut short by its budget" for arm, of_arm in rows.items() if cut_short(of_arm)}
    return found | cut


@dataclass(frozen=True)
class Runs:
    """Every arm's rows, each in the problems' order, and the bars of some figures."""

    rows: Mapping[str, Sequence[Row]]
    bars: Mapping[str, float]

    def total(self, arm: str, field: str) -> float:
        return sum(row[field] for row in self.rows[arm])

    def token_seconds(self, arm: str) -> float:
        """A token's, latent ones included: each took a slot."""
        tokens = self.total(arm, "text_tokens") + self.total(arm, "latent_tokens")
        return self.total(arm, "seconds") / tokens

    def ratios(self, arm: str) -> list[Figure]:
        """Over transformers, over OpenVINO, over the same arm without drafts."""
        figures = [
            self.ratio(name, arm, other, field, what)
            for name, (other, field, what) in RATIOS.items()
            if self.compares(arm, other) and self.rows[arm][0][field] is not None
        ]
        if self.compares(arm, TRANSFORMERS):
            value = self.token_seconds(arm) / self.token_seconds(TRANSFORMERS)
            name, what = "token_time_vs_transformers", f"seconds a token, over {TRANSFORMERS}"
            figures.insert(1, self.figure(name, arm, value, "x", "lower", what))
        undrafted = "+".join(part for part in arm.split("+") if part != DEPTH) or OFF
        if DEPTH in savings(arm) and self.compares(arm, undrafted):
            what = "seconds an answer"
            figures.append(self.ratio("time_vs_undrafted", arm, undrafted, "seconds", what))
        return figures

    def compares(self, arm: str, other: str) -> bool:
        """Whether both are there and have said as much as they were to."""
        both = arm != other and {arm, other} <= self.rows.keys()
        return both and not any(cut_short(self.rows[a]) for a in (arm, other))

    def ratio(self, name: str, arm: str, other: str, field: str, what: str) -> Figure:
        value = self.total(arm, field) / self.total(other, field)
        return self.figure(name, arm, value, "x", "lower", f"{what}, over {arm_label(other)}")

    def costs(self, arm: str) -> list[Figure]:
        """Means over problems."""
        fields = {"text_tokens": "tokens", "latent_tokens": "tokens", "seconds": "s"}
        if not self.total(arm, "latent_tokens"):
            del fields["latent_tokens"]
        return [
            self.figure(
                name, arm, self.total(arm, name) / len(self.rows[arm]), unit, "lower",
                f"{name.replace('_', ' ')} an answer",
            )
            for name, unit in fields.items()
        ]  # fmt: skip

    def quality(self, arm: str) -> list[Figure]:
        """Whether the text goes round in circles, and how many are right where that is known."""
        rows = self.rows[arm]
        new = mean(row["distinct4"] for row in rows)
        what = "distinct runs of 4 tokens, share of all"
        figures = [self.figure("distinct4", arm, new, "share", "higher", what)]
        if rows[0]["correct"] is not None:
            solved = sum(row["correct"] for row in rows)
            low, high = wilson(solved, len(rows))
            figures.append(
                Figure(
                    f"accuracy/{arm}", solved / len(rows), "share", "higher",
                    what=f"{arm_label(arm)}: solved", low=low, high=high,
                )
            )  # fmt: skip
        return figures

    def figure(
        self, name: str, arm: str, value: float, unit: str, better: str, what: str
    ) -> Figure:
        name = f"{name}/{arm}"
        return Figure(name, value, unit, better, self.bars.get(name), f"{arm_label(arm)}: {what}")


def cut_short(rows: Sequence[Row]) -> bool:
    """Whether answers that were to be of so many tokens ended before, as their budget allowed no
    eviction."""
    return any(row["correct"] is None and row["finish_reason"] == "budget" for row in rows)
