"""`sparing eval`: how many problems of a task a model solves, and at what cost."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from sparing.cli.bench import check_writable
from sparing.cli.fields import flag
from sparing.cli.flags import LoadingFlags, SeedlessFlags
from sparing.cli.progress import Progress
from sparing.cli.run import INTERRUPTED
from sparing.cli.view import megabytes
from sparing.latent.files import check_latent
from sparing.model.sources import find_here

WIDTH = 120  # of the table, where it does not go to a terminal


def evaluate(
    loading: LoadingFlags,
    decoding: SeedlessFlags,
    task: Annotated[
        str, flag("pocket, pocket-hard, a family, a reasoning-gym name, a file or a hub id")
    ],
    n: Annotated[int, flag("problems of each task", "--n", min=1)] = 100,
    seed: Annotated[int, flag("which problems; any seed is of the test split", min=0)] = 0,
    sample_seed: Annotated[int, flag("of the noise, where it is sampled", min=0)] = 0,
    raw: Annotated[bool, flag("no chat template: the question as it stands", "--raw")] = False,
    batch_size: Annotated[int, flag("problems at a time", min=1)] = 8,
    json_: Annotated[
        Path | None, flag("write the rows to this file; the same command goes on", "--json")
    ] = None,
) -> None:
    """Solve problems and grade the answers, with 95 % intervals."""
    from sparing.tasks.find import find_tasks

    check_latent(loading.model, decoding.latent)
    if json_:
        check_writable(json_)
    tasks = find_tasks(task)
    find_here(loading.model)
    from sparing.evaluate import accuracy
    from sparing.evaluate.batch_generate import Settings
    from sparing.evaluate.partial_results import PartialResults
    from sparing.evaluate.report import write_json

    settings = Settings(
        **decoding.options(), raw=raw, batch_size=batch_size, sample_seed=sample_seed
    )
    plan = accuracy.Plan(tasks, n, seed, settings)
    fingerprint = plan.fingerprint(model_fingerprint(loading))
    part = PartialResults(json_, fingerprint) if json_ else None
    engine = loading.load()
    content = follow(engine, plan, part)
    content = {"model": loading.model, **content, "fingerprint": fingerprint}
    show(content)
    if json_ and part:
        write_json(json_, content)
        part.remove()


def model_fingerprint(loading: LoadingFlags) -> dict[str, Any]:
    """What is known of a model before it is loaded."""
    from sparing.model.fingerprint import files_fingerprint
    from sparing.model.sources import find_model

    return {
        "model": loading.model,
        "model_files": files_fingerprint(find_model(loading.model)),
        "dtype": loading.dtype,
        "decoder": loading.decoder,
    }


def follow(engine: Any, plan: Any, part: Any) -> dict[str, Any]:
    """Evaluate with progress on the terminal; Ctrl-C leaves the part and says what to do."""
    from sparing.evaluate import accuracy

    progress = Progress()
    try:
        with part or nullcontext():
            return accuracy.evaluate(engine, plan, part, progress)
    except KeyboardInterrupt:
        typer.echo(left(plan, part), err=True)
        raise typer.Exit(INTERRUPTED) from None


def left(plan: Any, part: Any) -> str:
    """What an interrupted evaluation leaves behind."""
    if part is None:
        return "interrupted; with --json FILE the rows would have been kept"
    if not part.rows:
        return "interrupted before a problem was done; nothing is kept"
    return (
        f"interrupted with {len(part.rows)} of {len(plan.problems)} problems done, kept in "
        f"{part.path}; the same command goes on from there"
    )


def show(content: Mapping[str, Any]) -> None:
    """A line a task, and one over all of them where there are several."""
    from sparing.evaluate.report import origin_line

    costs = (
        "thinking\ntokens",
        "s per\nproblem",
        "s per\nsolved",
        "KV per\nproblem",
        "KV per\nsolved",
    )
    table = Table("task", "n", "accuracy", "95 %", *costs)
    summaries = dict(content["tasks"])
    if len(summaries) > 1:
        summaries["all"] = content["all"]
    for name, figures in summaries.items():
        table.add_row(name, *cells(figures))
    console = wide_console()
    console.print(table)
    console.print(
        f"{content['model']}, {content['seconds']:.1f} s of decoding; {origin_line(content)}",
        highlight=False,
    )


def wide_console() -> Console:
    """On stdout; a table that goes to a file is not cut to the 80 columns of no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def cells(figures: Mapping[str, Any]) -> list[str]:
    """A summary's figures as text; a dash where nothing was solved."""
    per_solved, kv_per_solved = figures["seconds_per_solved"], figures["kv_bytes_peak_per_solved"]
    return [
        str(figures["n"]),
        f"{figures['accuracy']:.1%}",
        f"{figures['low']:.1%} to {figures['high']:.1%}",
        f"{figures['thinking_tokens']:.0f}",
        f"{figures['seconds']:.2f}",
        "-" if per_solved is None else f"{per_solved:.2f}",
        megabytes(figures["kv_bytes_peak"]),
        "-" if kv_per_solved is None else megabytes(kv_per_solved),
    ]
