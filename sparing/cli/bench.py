"""`sparing bench`: measure, print a table, write the figures."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from sparing.cli.flags import LoadingFlags, flag, takes_flags
from sparing.errors import OptionError
from sparing.evaluate.report import against_bar, report, write_json

bench = typer.Typer(no_args_is_help=True, help="Measure speed and memory on this machine.")


@bench.callback()
def _group() -> None:
    """Measure speed and memory on this machine."""


@bench.command("decode")
@takes_flags
def decode(
    loading: LoadingFlags,
    prompts: Annotated[Path | None, flag("a file with a prompt a line")] = None,
    n: Annotated[int, flag("rounds; each figure is a median over them", "--n", min=1)] = 5,
    json_: Annotated[Path | None, flag("write the figures to this file", "--json")] = None,
    plot: Annotated[Path | None, flag("draw the bounded run into this file")] = None,
) -> None:
    """Plain decoding against transformers, verification, and a long run under a budget."""
    from sparing.evaluate.bench_decode import PROMPTS, bench_decode
    from sparing.evaluate.plots import draw_decode
    from sparing.model.reference import ReferenceDecoder
    from sparing.model.sources import find_model

    chosen = read_prompts(prompts) if prompts else PROMPTS
    engine = loading.load()
    other = ReferenceDecoder.load(find_model(loading.model), engine.decoder.dtype).model
    with Progress(console=Console(stderr=True)) as progress:
        figures, raw = bench_decode(engine, other, chosen, n, progress)
    content = report(figures, {**raw, "kinds": engine.decoder.kinds}, engine.decoder.dtype)
    show(content)
    if json_:
        write_json(json_, content)
    if plot:
        draw_decode(content, plot)


def read_prompts(path: Path) -> list[str]:
    """The lines of a file that are not blank."""
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"--prompts must be a text file, got {path}: {error}") from None
    found = [line for line in lines if line]
    if not found:
        raise OptionError(f"--prompts must hold a prompt or more, got none in {path}")
    return found


def show(content: dict[str, Any]) -> None:
    """The figures as a table, each beside its bar."""
    table = Table("figure", "value", "bar", "")
    for row in content["rows"]:
        value = f"{row['value']:.2f} {row['unit']}"
        table.add_row(row["what"] or row["name"], value, *against_bar(row))
    console = Console()
    console.print(table)
    console.print(
        f"{content['machine']}, {content['threads']} threads, {content['dtype']}, "
        f"torch {content['versions']['torch']}, commit {content['commit']}",
        highlight=False,
    )
