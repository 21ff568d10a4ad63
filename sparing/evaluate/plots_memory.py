"""The picture of `sparing bench memory`: accuracy over the budget."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from sparing.evaluate.bench_memory import policy_label
from sparing.evaluate.plots import bare, pyplot, save
from sparing.memory.find import POLICIES
from sparing.tasks.families import LEVELS

# Colours that colour-blind readers tell apart, and markers, in the order of ``POLICIES``.
COLOURS = (
    "#0072B2", "#56B4E9", "#009E73", "#CC79A7", "#E69F00", "#8C6D31", "#555555", "#999999",
    "#D55E00",
)  # fmt: skip
MARKERS = "hs^vDPx+o"
LOOKS = dict(zip(POLICIES, zip(COLOURS, MARKERS, strict=True), strict=True))
OTHER = ("#117733", "*")  # of a policy that a package brings


def draw_accuracy(content: Mapping[str, Any], path: Path) -> Any:
    """Accuracy over share, a panel a level, a line a policy; bands: 95 % of learned and the best
    other."""
    plt = pyplot()
    from matplotlib.patches import Patch

    figures = {row["name"]: row for row in content["rows"]}
    levels = [level for level in LEVELS if f"accuracy/full/{level}" in figures]
    sketch, panels = plt.subplots(
        1, len(levels), figsize=(2.4 + 3.6 * len(levels), 3.8), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for level, axes in zip(levels, panels[0], strict=True):
        draw_level(axes, figures, content["raw"]["plan"], level)
    panels[0, 0].set_ylabel("solved")
    handles, _ = panels[0, 0].get_legend_handles_labels()
    band = Patch(color="#dddddd", label="95 % interval")
    sketch.legend(handles=[*handles, band], loc="outside right upper", frameon=False, fontsize=9)
    return save(sketch, path)


def draw_level(axes: Any, figures: Mapping[str, Any], plan: Mapping[str, Any], level: str) -> None:
    """One panel: the full cache's line, then the policies', learned above all."""
    shares = sorted(plan["shares"])
    rows = {p: [figures[f"accuracy/{p}/{s:g}/{level}"] for s in shares] for p in plan["policies"]}
    full = figures[f"accuracy/full/{level}"]["value"]
    axes.axhline(full, color="black", linestyle="--", linewidth=1.2, label="full cache")
    for policy in sorted(rows, key=[*reversed(LOOKS), *rows].index):
        colour, marker = LOOKS.get(policy, OTHER)
        learned = policy == "learned"
        values = [row["value"] for row in rows[policy]]
        axes.plot(
            shares, values, color=colour, marker=marker, label=policy_label(policy),
            linewidth=2.6 if learned else 1.2, markersize=8 if learned else 6,
            markeredgecolor=colour if marker in "x+" else "white", zorder=3 if learned else 2,
        )  # fmt: skip
        if policy in banded(rows):
            low, high = ([row[end] for row in rows[policy]] for end in ("low", "high"))
            axes.fill_between(shares, low, high, color=colour, alpha=0.14, linewidth=0)
    axes.set(title=level, xlabel="share of the full run's thinking kept", ylim=(-0.02, 1.02))
    axes.set_xticks(shares, [f"{share:g}" for share in shares])
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    bare(axes)


def banded(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> set[str]:
    """Learned, and the policy beside it that is best in the mean over shares."""
    others = [policy for policy in rows if policy != "learned"]
    best = max(others, key=lambda p: mean(row["value"] for row in rows[p]), default="learned")
    return {"learned", best} & rows.keys()
