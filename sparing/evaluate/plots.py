"""What all pictures of measurements share, and the picture of `sparing bench decode`."""

from pathlib import Path
from typing import Any

from sparing.errors import OptionError

WINDOW = 64  # tokens over which a rate is taken
PICTURES = (".png", ".svg", ".pdf")


def draw_decode(content: dict[str, Any], path: Path) -> Any:
    """tokens/s over the bounded run: it must not fall as the thought grows."""
    plt = pyplot()
    times = content["raw"]["bounded_token_seconds"]
    ends = range(WINDOW, len(times), WINDOW)
    rates = [WINDOW / (times[end] - times[end - WINDOW]) for end in ends]
    megabytes = content["raw"]["bounded_stats"]["kv_bytes_peak"] / 1e6
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    axes.plot(list(ends), rates, color="#0072B2")
    axes.set(
        xlabel="new tokens",
        ylabel="tokens/s",
        ylim=(0, None),
        title=f"{len(times):,} tokens in {megabytes:.1f} MB of KV cache",
    )
    bare(axes)
    return save(figure, path)


def pyplot() -> Any:
    """matplotlib without a window; raises OptionError where it is not installed."""
    try:
        import matplotlib
    except ImportError:
        raise OptionError(
            "--plot needs matplotlib, which is not installed; pip install matplotlib"
        ) from None
    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    return plt


def bare(*some: Any) -> None:
    """Axes without a frame at the top and at the right."""
    for axes in some:
        axes.spines[["top", "right"]].set_visible(False)


def save(figure: Any, path: Path, dpi: int = 150) -> Any:
    """Write a picture; gives it back, closed."""
    figure.savefig(path, dpi=dpi)
    pyplot().close(figure)
    return figure


def check_picture(path: Path) -> None:
    """Refuse a picture that could not be drawn, before the work that it shows."""
    pyplot()
    if path.suffix not in PICTURES:
        raise OptionError(f"--plot must end in {', '.join(PICTURES)}, got {path.name}")
