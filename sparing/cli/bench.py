"""`sparing bench`: measure, print a table, write the figures."""

import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from sparing.cli.flags import LoadingFlags, flag, number, takes_flags
from sparing.errors import OptionError, reason
from sparing.evaluate.report import against_bar, origin_line, report, write_json

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
    from sparing.evaluate.plots import check_picture, draw_decode
    from sparing.model.reference import ReferenceDecoder
    from sparing.model.sources import find_model

    chosen = read_prompts(prompts) if prompts else PROMPTS
    for path in filter(None, (json_, plot)):
        check_writable(path)
    if plot:
        check_picture(plot)
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


@bench.command("pocket")
@takes_flags
def pocket(
    loading: LoadingFlags,
    n: Annotated[int, flag("problems of each family and level", "--n", min=1)] = 200,
    seed: Annotated[int, flag("which problems", min=0)] = 0,
    short_with: Annotated[str | None, flag("a model briefly trained as pocket, to compare")] = None,
    short_without: Annotated[
        str | None, flag("the same, trained with --layer-dropout 0 --exit-weight 0")
    ] = None,
    json_: Annotated[Path | None, flag("write the figures to this file", "--json")] = None,
) -> None:
    """Accuracy with and without thinking, speed, and what skipping layers would cost."""
    from sparing.api import load
    from sparing.evaluate.bench_pocket import bench_pocket
    from sparing.model.reference import ReferenceDecoder
    from sparing.model.sources import find_model
    from sparing.tasks.find import family_tasks

    if json_:
        check_writable(json_)
    engine = loading.load()
    other = ReferenceDecoder.load(find_model(loading.model), engine.decoder.dtype).model
    named = {"with": short_with, "without": short_without}
    controls = {how: load(name, loading.dtype) for how, name in named.items() if name}
    with Progress(console=Console(stderr=True)) as progress:
        figures, raw = bench_pocket(engine, other, controls, family_tasks(), n, seed, progress)
    content = report(figures, raw, engine.decoder.dtype)
    show(content)
    if json_:
        write_json(json_, content)


@bench.command("memory")
@takes_flags
def memory(
    loading: LoadingFlags,
    task: Annotated[str, flag("as of `sparing eval`, several with commas")] = "pocket,pocket-hard",
    n: Annotated[int, flag("problems of each task", "--n", min=1)] = 200,
    seed: Annotated[int, flag("which problems", min=0)] = 0,
    split: Annotated[str, flag("test or validation")] = "test",
    policies: Annotated[
        str | None, flag("which to compare, with commas; by default all that the model can use")
    ] = None,
    shares: Annotated[
        str, flag("budgets, with commas: s means question + s * the full run's thinking")
    ] = "0.1,0.25,0.5",
    local: Annotated[Any, number("most recent tokens, protected from eviction")] = None,
    selection: Annotated[Any, number("how many of the unprotected survive an eviction")] = None,
    max_new_tokens: Annotated[int, flag("end after so many new tokens", min=1)] = 1400,
    batch_size: Annotated[int, flag("problems at a time", min=1)] = 64,
    json_: Annotated[
        Path | None, flag("write the figures to this file; the same command goes on", "--json")
    ] = None,
    plot: Annotated[Path | None, flag("draw accuracy over budgets into this file")] = None,
    trace_plot: Annotated[
        Path | None, flag("draw one trace, token by token, into this file")
    ] = None,
) -> None:
    """Eviction policies at the same budget against the full cache; their clock and their bytes."""
    from sparing.cli.evaluate import model_fingerprint
    from sparing.cli.run import INTERRUPTED
    from sparing.evaluate.bench_memory import bench_memory
    from sparing.evaluate.bench_memory_rows import Plan, chosen_policies
    from sparing.evaluate.bench_memory_trace import Target
    from sparing.evaluate.part import Part, files_fingerprint
    from sparing.evaluate.plots import check_picture
    from sparing.evaluate.plots_memory import draw_accuracy, draw_trace
    from sparing.memory.predictor import find_predictor
    from sparing.model.reference import ReferenceDecoder
    from sparing.model.sources import find_model
    from sparing.tasks.find import find_tasks

    for path in filter(None, (json_, plot, trace_plot)):
        check_writable(path)
    for path in filter(None, (plot, trace_plot)):
        check_picture(path)
    home = find_predictor(loading.predictor, find_model(loading.model))
    named = [name.strip() for name in policies.split(",")] if policies else None
    plan = Plan(
        tasks=find_tasks(task),
        n=n,
        seed=seed,
        policies=chosen_policies(named, home is not None),
        shares=read_shares(shares),
        split=split,  # type: ignore[arg-type]
        local=local,
        selection=selection,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
    )
    target = Target.of(home) if trace_plot else None
    predictor = files_fingerprint(home) if home else None
    fingerprint = plan.fingerprint(model_fingerprint(loading) | {"predictor": predictor})
    part = Part(json_, fingerprint) if json_ else None
    engine = loading.load()
    other = ReferenceDecoder.load(find_model(loading.model), engine.decoder.dtype).model
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=Console(stderr=True))
    try:
        with part or nullcontext():
            figures, raw = bench_memory(engine, other, plan, part, target, progress)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; {kept(part)}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    content = report(figures, raw, engine.decoder.dtype) | {"fingerprint": fingerprint}
    show_memory(content)
    if json_ and part:
        write_json(json_, content)
        part.remove()
    if plot:
        draw_accuracy(content, plot)
    if trace_plot and raw["trace"]:
        draw_trace(raw["trace"], trace_plot)
    elif trace_plot:
        typer.echo("no trace drawn: the full cache solved no problem of the first task", err=True)


def kept(part: Any) -> str:
    """What an interrupted run leaves behind."""
    if part is None:
        return "with --json FILE the rows would have been kept"
    if not part.rows:
        return "no row was done, nothing is kept"
    return f"{len(part.rows)} rows are kept in {part.path}, the same command goes on from there"


def read_shares(text: str) -> list[float]:
    try:
        return list(dict.fromkeys(float(share) for share in text.split(",")))
    except ValueError:
        raise OptionError(f"--shares must be numbers with commas, got {text!r}") from None


def read_prompts(path: Path) -> list[str]:
    """A prompt a line, as text or, in a .jsonl file, as an object with ``prompt`` or ``turns``."""
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
        found = [line for line in lines if line]
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in found]
            found = [row["prompt"] if "prompt" in row else row["turns"][0] for row in rows]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise OptionError(
            f"--prompts must be a text file with a prompt a line, or a .jsonl file with prompt or "
            f"turns in each, got {path}: {reason(error)}"
        ) from None
    if not found:
        raise OptionError(f"--prompts must hold a prompt or more, got none in {path}")
    return found


def check_writable(path: Path) -> None:
    """Refuse a file that could not be written, before the work that it is for."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"{path} must be a file to write, got: {reason(error)}") from None
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise OptionError(f"{path} must be a file to write, got a directory or no permission")


def show(content: dict[str, Any]) -> None:
    """The figures as a table, each beside its bar."""
    table = Table("figure", "value", "bar", "")
    for row in content["rows"]:
        value = f"{row['value']:.2f} {row['unit']}"
        table.add_row(row["what"] or row["name"], value, *against_bar(row))
    console = Console()
    console.print(table)
    console.print(origin_line(content), highlight=False)


def show_memory(content: dict[str, Any]) -> None:
    """Accuracy as a table, then the figures with a bar and those of the clock."""
    from sparing.cli.evaluate import wide_console
    from sparing.evaluate.tables import memory_cells

    header, *rows = memory_cells(content)
    table = Table(*(cell.replace(" at ", "\nat ") for cell in header))
    for cells in rows:
        table.add_row(*cells)
    wide_console().print(table)
    chosen = [r for r in content["rows"] if r["bar"] is not None or "/" not in r["name"]]
    show(content | {"rows": chosen})
