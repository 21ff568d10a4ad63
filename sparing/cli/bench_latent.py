"""`sparing bench latent`: the arms of `sparing train ablations` compared; it trains nothing."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from sparing.cli.bench import check_writable, show
from sparing.cli.bench_memory import kept
from sparing.cli.flags import flag, quiet_transformers
from sparing.cli.progress import Progress
from sparing.evaluate.report import report, write_json

BASE = "base"  # the arm of --model: as a rule what all arms began with


def latent(
    from_: Annotated[Path, flag("the --out of `sparing train ablations`", "--from")],
    arms: Annotated[str | None, flag("which, with commas; by default all that are there")] = None,
    model: Annotated[
        str | None, flag("a model beside them as the arm `base`, its latents off")
    ] = None,
    task: Annotated[str, flag("as of `sparing eval`, several with commas")] = "pocket-hard",
    n: Annotated[int, flag("problems of each task", "--n", min=1)] = 200,
    seed: Annotated[int, flag("which problems", min=0)] = 0,
    split: Annotated[str, flag("test or validation")] = "test",
    max_new_tokens: Annotated[int, flag("end after so many new tokens", min=1)] = 1400,
    batch_size: Annotated[int, flag("problems at a time, in each process", min=1)] = 64,
    dtype: Annotated[str, flag("float32, bfloat16 or float16")] = "float32",
    threads: Annotated[int | None, flag("threads of torch", min=1)] = None,
    workers: Annotated[
        int, flag("processes for the problems, each with its part of the threads", min=1)
    ] = 1,
    json_: Annotated[
        Path | None, flag("write the figures to this file; the same command goes on", "--json")
    ] = None,
    plot: Annotated[Path | None, flag("draw accuracy and collapse into this file")] = None,
) -> None:
    """Accuracy of each arm with paired intervals against cot, its tokens, steps and seconds."""
    from sparing.cli.run import INTERRUPTED
    from sparing.evaluate.bench_latent import bench_latent
    from sparing.evaluate.bench_latent_rows import Plan
    from sparing.evaluate.partial_results import PartialResults
    from sparing.evaluate.plots import check_picture
    from sparing.evaluate.plots_latent import draw_latent
    from sparing.latent.ablations import Trained, read_trained
    from sparing.model.sources import find_model
    from sparing.tasks.find import find_tasks

    for path in filter(None, (json_, plot)):
        check_writable(path)
    if plot:
        check_picture(plot)
    named = [name.strip() for name in arms.split(",")] if arms else None
    models, tasks = read_trained(from_, named), find_tasks(task)
    if model:
        models.insert(0, Trained(BASE, models[0].seed, find_model(model), "off"))
    plan = Plan(models, tasks, n, seed, split, max_new_tokens, batch_size, dtype)  # type: ignore[arg-type]
    part = PartialResults(json_, plan.fingerprint()) if json_ else None
    import torch

    if threads:
        torch.set_num_threads(threads)
    quiet_transformers()
    progress = Progress()
    try:
        with part or nullcontext(), several(workers, plan) as runner:
            figures, raw = bench_latent(plan, part, progress, runner)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; {kept(part)}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    content = report(figures, {"workers": workers, **raw}, getattr(torch, dtype))
    show_latent(content, plan.arms)
    show(content | {"rows": [row for row in content["rows"] if row["bar"] is not None]})
    if json_ and part:
        write_json(json_, content)
        part.remove()
    if plot:
        draw_latent(content, plot)


def several(workers: int, plan: Any) -> Any:
    """The processes that take the problems; with one, this does it itself."""
    from sparing.evaluate.bench_latent_rows import run
    from sparing.evaluate.process_pool import Workers

    return Workers(workers, quiet_transformers, plan, run) if workers > 1 else nullcontext()


def show_latent(content: dict[str, Any], arms: list[str]) -> None:
    """An arm a line."""
    from sparing.cli.evaluate import wide_console
    from sparing.evaluate.tables import latent_cells

    header, *rows = latent_cells(content, arms)
    table = Table(*header)
    for cells in rows:
        table.add_row(*cells)
    wide_console().print(table)
