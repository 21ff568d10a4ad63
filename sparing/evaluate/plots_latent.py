"""Pictures of `sparing bench latent`: accuracy over words said, and whether latents collapse."""

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from sparing.evaluate.plots import bare, pyplot, save

COLOURS = {  # that colour-blind readers tell apart
    "cot": "#000000",
    "latent": "#D55E00",
    "no-stage-2": "#CC79A7",
    "no-stage-3": "#E69F00",
    "pause": "#009E73",
    "banned": "#56B4E9",
    "ignore": "#8C6D31",
    "words-for-latents": "#0072B2",
}


def draw_latent(content: Mapping[str, Any], path: Path) -> Any:
    """Left: solved over text tokens, an arm a point. Right: the distance between successive latent
    inputs, over their number in the thought."""
    plt = pyplot()
    figures = {row["name"]: row for row in content["rows"]}
    sketch, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for arm, colour in COLOURS.items():
        if f"accuracy/{arm}" not in figures:
            continue
        solved = figures[f"accuracy/{arm}"]
        below, above = solved["value"] - solved["low"], solved["high"] - solved["value"]
        left.errorbar(
            [figures[f"text_tokens/{arm}"]["value"]], [solved["value"]],
            yerr=[[max(below, 0)], [max(above, 0)]], fmt="o", color=colour, capsize=3, label=arm,
        )  # fmt: skip
    left.set(xlabel="text tokens a problem", ylabel="solved (95 %)")
    left.yaxis.set_major_formatter("{x:.0%}")
    left.legend(frameon=False, fontsize=8)
    for name, found in content["raw"]["vectors"].items():
        arm, _, seed = name.partition("/")
        means = by_number(found["distances"])
        if means:
            label = arm if seed == "0" else None
            right.plot(
                range(2, len(means) + 2), means, color=COLOURS[arm], linewidth=1.4, label=label
            )
    right.set(
        xlabel="latent of a thought",
        ylabel="distance to the one before, over their length",
        ylim=(0, None),
    )
    bare(left, right)
    return save(sketch, path)


def by_number(distances: list[list[float]]) -> list[float]:
    """The mean over rows of the second latent's, of the third's, and so on."""
    longest = max(map(len, distances), default=0)
    return [mean(row[at] for row in distances if len(row) > at) for at in range(longest)]
