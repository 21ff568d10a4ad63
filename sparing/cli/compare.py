"""`sparing compare`: two evaluations of the same problems, B minus A."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from sparing.cli.bench import check_writable
from sparing.cli.evaluate import wide_console
from sparing.cli.fields import flag


def compare(
    a: Annotated[Path, typer.Argument(help="the --json of a `sparing eval`")],
    b: Annotated[Path, typer.Argument(help="another, of the same problems")],
    json_: Annotated[Path | None, flag("write the figures to this file", "--json")] = None,
) -> None:
    """Compare two evaluations, problem by problem.

    The difference is B minus A, with a 95 % interval.
    """
    from sparing.evaluate.compare import compare as compare_files
    from sparing.evaluate.report import write_json

    if json_:
        check_writable(json_)
    content = compare_files(a, b)
    show(content)
    if json_:
        write_json(json_, content)


def show(content: Mapping[str, Any]) -> None:
    """A line a task, and one over all of them where there are several."""
    table = Table("task", "n", "A", "B", "B - A", "95 %", "only A", "only B")
    tasks = dict(content["tasks"])
    if len(tasks) > 1:
        tasks["all"] = content
    for name, figures in tasks.items():
        table.add_row(
            name,
            str(figures["n"]),
            f"{figures['accuracy_a']:.1%}",
            f"{figures['accuracy_b']:.1%}",
            f"{figures['difference']:+.1%}",
            f"{figures['low']:+.1%} to {figures['high']:+.1%}",
            str(figures["only_a"]),
            str(figures["only_b"]),
        )
    wide_console().print(table)
