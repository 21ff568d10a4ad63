"""The picture of one trace of `sparing bench memory`, token by token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparing.evaluate.plots import pyplot, save

LONGEST = 100  # characters a line
NARROWEST = 70
FONT_POINTS = 8.0
CELL = 0.602 * FONT_POINTS / 72  # inches that a character of DejaVu Sans Mono is wide
LINE = 1.75 * FONT_POINTS / 72  # inches from a line to the next
HEAD, MARGIN = 0.36, 0.2  # inches above each block, and around all
LIGHT, DARK = 0.04, 0.82  # of the colour map, from the least important token to the most
STRUCK = "#D55E00"
NEW_LINE, UNSEEN = "\u21b5", "\u00b7"


@dataclass(frozen=True)
class Cell:
    """A piece of a token on a line: where it begins, in characters and lines."""

    token: int
    text: str
    column: int
    line: int


def draw_trace(trace: Mapping[str, Any], path: Path) -> Any:
    """The thinking token by token, darker where more important; above predicted, below true."""
    plt = pyplot()
    cells = lay_out(trace["tokens"])
    lines = 1 + max(cell.line for cell in cells)
    columns = max(NARROWEST, *(cell.column + len(cell.text) for cell in cells))
    block = HEAD + lines * LINE
    width, height = columns * CELL + 2 * MARGIN, 2 * (block + MARGIN)
    sketch = plt.figure(figsize=(width, height))
    blocks = (
        ("predicted", "predicted importance", trace["evicted"]),
        ("true", f"true importance ({trace['target']})", [False] * len(trace["tokens"])),
    )
    for index, (name, head, struck) in enumerate(blocks):
        bottom = height - (index + 1) * (block + MARGIN) + MARGIN / 2
        axes = sketch.add_axes(
            (MARGIN / width, bottom / height, columns * CELL / width, lines * LINE / height)
        )
        axes.set(xlim=(0, columns), ylim=(lines, 0))
        axes.set_axis_off()
        axes.set_title(head, loc="left", fontsize=10, fontweight="bold")
        if name == "predicted":
            draw_key(axes, columns, f"evicted at share {trace['share']:g}")
        draw_tokens(axes, cells, ranks(trace[name]), struck)
    return save(sketch, path, dpi=200)


def lay_out(tokens: Sequence[str]) -> list[Cell]:
    """Where each token goes: lines end where the text's do, and at ``LONGEST`` characters."""
    cells, column, line = list[Cell](), 0, 0
    for token, text in enumerate(tokens):
        for index, part in enumerate(text.replace("\n", NEW_LINE + "\n").split("\n")):
            shown = "".join(c if c.isprintable() else UNSEEN for c in part)[:LONGEST]
            if index or column + len(shown) > LONGEST:
                column, line = 0, line + 1
            cells.append(Cell(token, shown, column, line))
            column += len(shown)
    return [cell for cell in cells if cell.text]


def ranks(values: Sequence[float]) -> np.ndarray:
    """From 0, the least, to 1, the most."""
    order = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return order / max(len(values) - 1, 1)


def draw_tokens(axes: Any, cells: Sequence[Cell], rank: np.ndarray, struck: Sequence[bool]) -> None:
    """Each piece on its shade, a line through those struck out."""
    for cell in cells:
        x, y, width = cell.column, cell.line, len(cell.text)
        draw_box(axes, x, y, cell.text, rank[cell.token])
        if struck[cell.token]:
            strike(axes, x, x + width - 0.1, y)


def draw_box(axes: Any, x: float, y: float, text: str, rank: float) -> None:
    """A text on the shade of its rank; a gap at its right parts it from the next one."""
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    shade = LIGHT + (DARK - LIGHT) * rank
    colour = colormaps["Blues"](shade)
    axes.add_patch(
        Rectangle((x, y + 0.06), len(text) - 0.1, 0.88, color=colour, linewidth=0, clip_on=False)
    )
    draw_text(axes, x, y, text, "white" if shade > 0.55 else "black")


def draw_text(axes: Any, x: float, y: float, text: str, colour: str) -> None:
    axes.text(
        x, y + 0.52, text, family="DejaVu Sans Mono", fontsize=FONT_POINTS, color=colour,
        va="center_baseline", parse_math=False,
    )  # fmt: skip


def strike(axes: Any, begin: float, end: float, y: float) -> None:
    axes.plot(
        [begin, end], [y + 0.5, y + 0.5], color=STRUCK, linewidth=1.2, solid_capstyle="butt",
        clip_on=False,
    )  # fmt: skip


def draw_key(axes: Any, columns: int, struck: str) -> None:
    """At the right above the first line: what shades and strokes mean."""
    y, steps = -1.3, 6
    x = columns - len(struck) - steps - len("least  most  ")
    draw_text(axes, x, y, "least", "black")
    for step in range(steps):
        draw_box(axes, x + 6 + step, y, " ", step / (steps - 1))
    draw_text(axes, x + 7 + steps, y, "most", "black")
    begin = columns - len(struck)
    draw_text(axes, begin, y, struck, "black")
    strike(axes, begin, columns, y)
