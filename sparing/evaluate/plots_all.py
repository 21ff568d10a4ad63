"""The picture of `sparing bench all`: time, KV bytes and words as shares of transformers'."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparing.evaluate.bench_all_arms import BASELINES, TRANSFORMERS, savings
from sparing.evaluate.headline import arm_label, model_label
from sparing.evaluate.plots import pyplot, save

PANELS = (("time", "time"), ("kv_bytes", "KV cache"), ("text_tokens", "words"))
COLOURS = {0: "#b9c7d6", 1: "#7fb3d5", 2: "#3a86c8"}  # by savings that are on, below all of them
ALL, PEER, REFERENCE = "#D55E00", "#bdbdbd", "#555555"
BAR = 0.26  # inches
HEAD = 0.42  # inches above each model's bars
WIDEST = 1.6  # of transformers' figure: longer bars are cut


def draw_headline(contents: Sequence[Mapping[str, Any]], path: Path) -> Any:
    """A band a model, a bar an arm, a column a cost; the line is what transformers takes."""
    plt = pyplot()
    heights = [HEAD + BAR * (len(content["arms"]) - 1) for content in contents]
    sketch, panels = plt.subplots(
        len(contents), len(PANELS), figsize=(9, sum(heights) + 0.7), sharex=True, squeeze=False,
        height_ratios=heights, layout="constrained",
    )  # fmt: skip
    for content, row in zip(contents, panels, strict=True):
        for axes, (cost, _) in zip(row, PANELS, strict=True):
            draw_bars(axes, content, cost, axes is row[0])
        row[0].annotate(
            model_label(content), (0, 1), (-6, 4), "axes fraction", "offset points",
            ha="right", fontsize=11, fontweight="bold",
        )  # fmt: skip
    for axes, (_, title) in zip(panels[0], PANELS, strict=True):
        axes.set_title(title, fontsize=11)
    sketch.supxlabel("dashed: what transformers.generate takes for the same questions", fontsize=9)
    return save(sketch, path)


def draw_bars(axes: Any, content: Mapping[str, Any], cost: str, labelled: bool) -> None:
    """One cost of one model, a bar for each arm but transformers itself."""
    arms = [arm for arm in content["arms"] if arm != TRANSFORMERS]
    most = max((len(savings(arm)) for arm in arms), default=0)
    for place, arm in enumerate(arms):
        value = share(content, cost, arm)
        if value is None:
            axes.text(0.02, place, "not told", va="center", fontsize=8, color="#888888")
            continue
        axes.barh(place, min(value, WIDEST), height=0.72, color=colour(arm, most))
        axes.text(
            min(value, WIDEST) + 0.02, place, f"{value:.0%}", va="center", fontsize=8,
            fontweight="bold" if colour(arm, most) == ALL else "normal",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip
    axes.axvline(1, color=REFERENCE, linewidth=1, linestyle="--", zorder=0)
    axes.set(ylim=(len(arms) - 0.4, -0.6), xlim=(0, WIDEST * 1.12), xticks=(0, 0.5, 1))
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.set_yticks(range(len(arms)), [arm_label(arm) if labelled else "" for arm in arms])
    axes.tick_params(length=0, labelsize=8.5)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def share(content: Mapping[str, Any], cost: str, arm: str) -> float | None:
    """Of transformers' figure; None where it was not measured."""
    values = content["values"]
    if cost == "text_tokens":
        pair = [values.get(f"{cost}/{a}") for a in (arm, TRANSFORMERS)]
        return None if None in pair else pair[0]["value"] / pair[1]["value"]
    found = values.get(f"{cost}_vs_transformers/{arm}")
    return found and found["value"]


def colour(arm: str, most: int) -> str:
    """Grey for baselines; the more is spared the stronger; all together stands out."""
    if arm in BASELINES:
        return PEER
    on = len(savings(arm))
    return ALL if on and on == most else COLOURS[on]
