"""The picture of `sparing bench depth`: the search of layer sets over time, as measured."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparing.evaluate.plots import pyplot, save

COLOURS = {"accumulation": "#cfe3f2", "optimization": "#f6d9b8", "acceleration": "#cde8d5"}


def draw_timeline(cold: Mapping[str, Any], path: Path) -> Any:
    """Over the tokens of a cold start: the phases, the set's size and matchness, tokens/s."""
    plt = pyplot()
    from matplotlib.patches import Patch

    told, speeds = cold["timeline"], cold["speeds"]
    total = cold["total"]["tokens"]
    sketch, (above, below) = plt.subplots(
        2, 1, figsize=(8, 4.4), sharex=True, layout="constrained", height_ratios=(1, 1)
    )
    ends = [event["at"] for event in told[1:]] + [total]
    for event, end in zip(told, ends, strict=True):
        for axes in (above, below):
            axes.axvspan(event["at"], end, color=COLOURS[event["phase"]], linewidth=0)
    at = [event["at"] for event in told] + [total]
    sizes = [len(event["skipped"]) for event in told]
    matchness = [event["matchness"] for event in told]
    above.step(at, [*sizes, sizes[-1]], where="post", color="#0072B2")
    above.set_ylabel("sub-layers skipped", color="#0072B2")
    above.set_ylim(0, 1.25 * max(1, *sizes))  # its line stays below that of matchness
    twin = above.twinx()
    twin.step(at, [*matchness, matchness[-1]], where="post", color="#D55E00")
    twin.set_ylabel("matchness", color="#D55E00")
    twin.set_ylim(0, 1.05)
    below.plot([s["at"] for s in speeds], [s["tokens_per_s"] for s in speeds], color="#333333")
    below.set(xlabel="new tokens", ylabel="tokens/s", ylim=(0, None), xlim=(0, total))
    handles = [Patch(color=colour, label=phase) for phase, colour in COLOURS.items()]
    sketch.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
    for axes in (above, below, twin):
        axes.spines["top"].set_visible(False)
    return save(sketch, path)
