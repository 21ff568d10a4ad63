"""What commands leave behind: JSON files, pictures, tables, and rows after Ctrl-C."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from sparing.cli.fields import flag
from sparing.cli.run import INTERRUPTED
from sparing.errors import OptionError

WIDTH = 120  # of a table, where it does not go to a terminal


@dataclass
class JsonFlag:
    """Where figures are written; a finished report that is there is not lost unasked."""

    json_: Annotated[Path | None, flag("write the figures to this file", "--json")] = None
    overwrite: Annotated[bool, flag("replace finished files that are there", "--overwrite")] = False

    def check(self) -> None:
        """Refuse a file that could not or must not be written, before the work that it is for."""
        self.check_new(self.json_)

    def check_new(self, path: Path | None) -> None:
        """Refuse a file that cannot be written, and a filled one."""
        if path:
            check_writable(path)
            if not self.overwrite and is_filled(path):
                raise OptionError(
                    f"{path} must not be there yet, got a finished file; "
                    "pass --overwrite, or another name"
                )

    def write(self, content: dict[str, Any]) -> None:
        from sparing.evaluate.report import write_json

        if self.json_:
            write_json(self.json_, content)


@dataclass
class RowsFlag(JsonFlag):
    """The same, of an experiment whose rows are kept beside the file until it is done."""

    json_: Annotated[
        Path | None, flag("write the figures to this file; the same command goes on", "--json")
    ] = None

    def part(self, fingerprint: Mapping[str, Any]) -> Any:
        """The rows so far; raises OptionError where they are of other settings."""
        from sparing.evaluate.partial_results import PartialResults

        return PartialResults(self.json_, fingerprint) if self.json_ else None

    def finish(self, content: dict[str, Any], part: Any) -> None:
        """Write the figures; the rows are among them."""
        self.write(content)
        if part:
            part.remove()


@dataclass
class PlotFlag:
    """Where figures are drawn."""

    plot: Annotated[Path | None, flag("draw the figures into this file")] = None

    def check(self) -> None:
        """Refuse a picture that could not be drawn, before the work that it is for."""
        if self.plot:
            check_drawable(self.plot)

    def draw(self, draw: Callable[[Any, Path], Any], content: Any) -> None:
        if self.plot:
            draw_into(self.plot, draw, content)


def draw_into(path: Path, draw: Callable[[Any, Path], Any], content: Any) -> None:
    """Draw a file, into a directory that may be new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(content, path)


def check_drawable(path: Path) -> None:
    from sparing.evaluate.plots import check_picture

    check_writable(path)
    check_picture(path)


def check_writable(path: Path) -> None:
    """Refuse a file that could not be written, before the work that it is for.

    Its directory may be missing: it is made when the file is written.
    """
    folder = next(each for each in path.absolute().parents if each.exists())
    if path.exists() and not path.is_file():
        got = "a directory or a device"
    elif not folder.is_dir():
        got = f"{folder}, which is a file, as a directory"
    elif not os.access(folder, os.W_OK):
        got = "no permission"
    else:
        return
    raise OptionError(f"{path} must be a file to write, got {got}; pass another name")


def is_filled(path: Path) -> bool:
    """Whether there is such a file, with something in it."""
    return path.exists() and path.stat().st_size > 0


@contextmanager
def kept_rows(part: Any) -> Iterator[None]:
    """Rows go to ``part``, if there is one; Ctrl-C says what is kept, and ends the command."""
    try:
        with part or nullcontext():
            yield
    except KeyboardInterrupt:
        typer.echo(f"interrupted; {kept(part)}", err=True)
        raise typer.Exit(INTERRUPTED) from None


def kept(part: Any) -> str:
    """What an interrupted experiment leaves behind."""
    if part is None:
        return "with --json FILE the rows would have been kept"
    if not part.rows:
        return "no row was done, nothing is kept"
    return f"{len(part.rows)} rows are kept in {part.path}, the same command goes on from there"


def model_fingerprint(loading: Any) -> dict[str, Any]:
    """What is known of a model before it is loaded."""
    from sparing.model.fingerprint import files_fingerprint
    from sparing.model.sources import find_model

    return {
        "model": loading.model,
        "model_files": files_fingerprint(find_model(loading.model)),
        "weights": loading.weights,
        "dtype": loading.dtype,
        "decoder": loading.decoder,
    }


def wide_console() -> Any:
    """On stdout; a table that goes to a file is not cut to the 80 columns of no terminal."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def show_cells(cells: Sequence[Sequence[str]], header: Callable[[str], str] = str) -> None:
    """A table on stdout, its first row the header; ``header`` breaks those cells into lines."""
    from rich.table import Table

    first, *rows = cells
    table = Table(*map(header, first))
    for row in rows:
        table.add_row(*row)
    wide_console().print(table)


def show(content: Mapping[str, Any], rows: Sequence[Mapping[str, Any]] | None = None) -> None:
    """The figures as a table, and where they come from; ``rows``: those of a report to show."""
    from rich.console import Console
    from rich.table import Table

    from sparing.evaluate.report import origin_line

    table = Table("figure", "value")
    for row in content["rows"] if rows is None else rows:
        table.add_row(row["what"] or row["name"], f"{row['value']:.2f} {row['unit']}")
    console = Console()
    console.print(table)
    console.print(origin_line(content), highlight=False)
