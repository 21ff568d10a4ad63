"""`sparing eval`: how many problems of a task a model solves, and at what cost."""

from collections.abc import Mapping
from typing import Annotated, Any

from sparing.cli.fields import flag
from sparing.cli.flags import LoadingFlags, SeedlessFlags
from sparing.cli.output import RowsFlag, kept_rows, model_fingerprint, wide_console
from sparing.cli.progress import Progress
from sparing.cli.view import megabytes
from sparing.latent.files import check_latent


def evaluate(
    loading: LoadingFlags,
    decoding: SeedlessFlags,
    out: RowsFlag,
    task: Annotated[
        str, flag("pocket, pocket-hard, a family, a reasoning-gym name, a file or a hub id")
    ],
    n: Annotated[int, flag("problems of each task", "--n", min=1)] = 100,
    seed: Annotated[int, flag("which problems; any seed is of the test split", min=0)] = 0,
    sample_seed: Annotated[int, flag("of the noise, where it is sampled", min=0)] = 0,
    raw: Annotated[bool, flag("without the chat template", "--raw")] = False,
    batch_size: Annotated[int, flag("problems at a time", min=1)] = 8,
) -> None:
    """Solve problems and grade the answers, with 95 % intervals."""
    from sparing.tasks.find import find_tasks

    check_latent(loading.model, decoding.latent)
    tasks = find_tasks(task)
    from sparing.evaluate import accuracy
    from sparing.evaluate.batch_generate import Settings

    settings = Settings(
        **decoding.options(), raw=raw, batch_size=batch_size, sample_seed=sample_seed
    )
    experiment = accuracy.AccuracyExperiment(tasks, n, seed, settings)
    fingerprint = experiment.fingerprint(model_fingerprint(loading))
    part = out.part(fingerprint)
    engine = loading.load()
    with kept_rows(part):
        content = accuracy.evaluate(engine, experiment, part, Progress())
    content = {"model": loading.model, **content, "fingerprint": fingerprint}
    show(content)
    out.finish(content, part)


def show(content: Mapping[str, Any]) -> None:
    """A line a task, and one over all of them where there are several."""
    from rich.table import Table

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
