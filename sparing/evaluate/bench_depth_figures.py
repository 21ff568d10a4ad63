"""The figures of `sparing bench depth`, from the runs of each arm on each prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean, median
from typing import Any

from sparing.evaluate.report import Figure
from sparing.evaluate.statistics import geometric_mean

OTHERS = {  # by the beginning of a figure's name: the arm, and its label
    "speedup": ("off", "plain"),
    "vs_transformers": ("transformers", "transformers.generate"),
    "vs_transformers_lookup": ("transformers-lookup", "transformers' prompt lookup"),
}
SPENT = {"search": "search", "draft": "drafting", "verify": "verifying and all else"}


def depth_figures(
    runs: Sequence[Mapping[str, Any]],
    drafters: Sequence[str],
    batched: Mapping[str, Sequence[float]],
    rows: int,
) -> list[Figure]:
    """All figures of warm drafters. ``batched``: seconds of each group with ``rows`` at a time."""
    figures = [figure for draft in drafters for figure in DrafterRuns(draft, runs).figures]
    if batched:
        ratios = [a / b for a, b in zip(batched["off"], batched["hybrid"], strict=True)]
        what = f"hybrid, warm, batch {rows}, over plain"
        figures.append(speedup(f"speedup/hybrid/batch{rows}", ratios, what))
    return figures


@dataclass(frozen=True)
class DrafterRuns:
    """The figures of one drafter."""

    draft: str
    runs: Sequence[Mapping[str, Any]]

    @cached_property
    def groups(self) -> list[str]:
        return list(dict.fromkeys(run["group"] for run in self.runs))

    @property
    def figures(self) -> list[Figure]:
        """Speed, what became of the drafted tokens, where the seconds went."""
        plain, *others = (self.speeds(name) for name in OTHERS)
        same = fmean(run["same"][self.draft] for run in self.runs)
        what = f"{self.draft}: answers that are those of plain decoding, token for token"
        return [
            *plain,
            self.worst(plain[:-1]),
            *(figure for speeds in others for figure in speeds),
            Figure(f"same/{self.draft}", same, "share", "higher", what),
            *(figure for group in (*self.groups, None) for figure in self.shares(group)),
        ]

    def speeds(self, name: str) -> list[Figure]:
        """Over another arm, group by group; last of all groups."""
        over, label = OTHERS[name]
        how = f"{self.draft}, warm, batch 1, over {label}"
        name = f"{name}/{self.draft}"
        of_groups = [
            speedup(f"{name}/{group}", self.ratios(over, group), f"{group}: {how}")
            for group in self.groups
        ]
        return [*of_groups, speedup(f"{name}/mean", self.ratios(over, None), f"{how}, mean")]

    def worst(self, speeds: Sequence[Figure]) -> Figure:
        found = min(speeds, key=lambda figure: figure.value)
        what = f"worst group, {found.what}"
        return replace(found, name=f"speedup/{self.draft}/worst", what=what)

    def shares(self, group: str | None) -> list[Figure]:
        """Tokens a pass, drafted tokens accepted, and of all seconds the search's, the drafts', and
        what is left, verification above all."""
        draft, where = self.draft, group or "mean"
        tokens, drafted, accepted, search_s, draft_s, all_s = (
            sum(run["stats"][draft][key] for run in self.of(group))
            for key in (
                "new_tokens", "drafted", "accepted", "search_seconds", "draft_seconds", "seconds"
            )
        )  # fmt: skip
        length = tokens / sum(run["steps"][draft] for run in self.of(group))
        spent = {"search": search_s, "draft": draft_s, "verify": all_s - search_s - draft_s}
        figures = [
            Figure(f"accepted_length/{draft}/{where}", length, "tokens", "higher",
                   f"{where}: {draft}, tokens a pass of the full model"),
            Figure(f"acceptance/{draft}/{where}", accepted / max(drafted, 1), "share", "higher",
                   f"{where}: {draft}, drafted tokens that were accepted"),
        ]  # fmt: skip
        for key, seconds in spent.items():
            name = f"time_share/{key}/{draft}" + (f"/{group}" if group else "")
            what = f"{where}: {draft}, warm, share of the time, {SPENT[key]}"
            figures.append(Figure(name, seconds / all_s, "share", "lower", what))
        return figures

    def of(self, group: str | None) -> list[Mapping[str, Any]]:
        """Runs of one group; None: of all."""
        return [run for run in self.runs if group in (None, run["group"])]

    def ratios(self, over: str, group: str | None) -> list[float]:
        """Another arm's seconds over this one's, prompt by prompt."""
        return [
            median(run["seconds"][over]) / median(run["seconds"][self.draft])
            for run in self.of(group)
        ]


def speedup(name: str, ratios: Sequence[float], what: str) -> Figure:
    """Geometric mean with its bootstrap interval."""
    found, low, high = geometric_mean(ratios)
    return Figure(name, found, "x", "higher", what, low, high)
