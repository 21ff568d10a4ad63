"""`sparing compare`: two evaluations of the same problems, B minus A."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sparing.cli.output import JsonFlag, show_cells

HEADER = ["task", "n", "A", "B", "B - A", "95 %", "only A", "only B"]


def compare(
    a: Annotated[Path, typer.Argument(help="the --json of a `sparing eval`")],
    b: Annotated[Path, typer.Argument(help="another, of the same problems")],
    out: JsonFlag,
) -> None:
    """Compare two evaluations, problem by problem.

    The difference is B minus A, with a 95 % interval.
    """
    from sparing.evaluate.compare import compare as compare_files

    content = compare_files(a, b)
    show_cells([HEADER, *rows(content)])
    out.write(content)


def rows(content: Mapping[str, Any]) -> list[list[str]]:
    """A line a task, and one over all of them where there are several."""
    tasks = dict(content["tasks"])
    if len(tasks) > 1:
        tasks["all"] = content
    return [
        [
            name,
            str(figures["n"]),
            f"{figures['accuracy_a']:.1%}",
            f"{figures['accuracy_b']:.1%}",
            f"{figures['difference']:+.1%}",
            f"{figures['low']:+.1%} to {figures['high']:+.1%}",
            str(figures["only_a"]),
            str(figures["only_b"]),
        ]
        for name, figures in tasks.items()
    ]
