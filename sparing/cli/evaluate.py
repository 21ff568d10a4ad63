"""`sparing eval`: how many problems of a task a model solves, and at what cost."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from sparing.cli.fields import flag
from sparing.cli.flags import LoadingFlags, SeedlessFlags
from sparing.cli.output import kept_rows, model_fingerprint, wide_console
from sparing.cli.progress import Progress
from sparing.cli.tabled import EvalFlag
from sparing.cli.view import megabytes
from sparing.cli.workers import WorkersFlag

REMEDIES = {  # what lets an answer end by itself, by the reason for which it did not
    "length": "raise --max-new-tokens",
    "budget": "raise --budget",
    "context": "the model's context is full",
}


def evaluate(
    loading: LoadingFlags,
    decoding: SeedlessFlags,
    out: EvalFlag,
    working: WorkersFlag,
    task: Annotated[
        str, flag("pocket, pocket-hard, a family, a reasoning-gym name, a file or a hub id")
    ],
    n: Annotated[int, flag("problems of each task", "--n", min=1)] = 100,
    seed: Annotated[int, flag("which problems; any seed is of the test split", min=0)] = 0,
    sample_seed: Annotated[int, flag("of the noise, where it is sampled", min=0)] = 0,
    raw: Annotated[bool, flag("without the chat template", "--raw")] = False,
    batch_size: Annotated[int, flag("problems at a time", min=1)] = 8,
    thoughts: Annotated[bool, flag("keep each thought among the rows, too", "--thoughts")] = False,
    question_field: Annotated[str | None, flag("of a file's or a data set's rows")] = None,
    answer_field: Annotated[str | None, flag("of a file's or a data set's rows")] = None,
) -> None:
    """Solve problems and grade the answers, with 95 % intervals.

    A share as --budget is of the new tokens that an answer may have (--max-new-tokens), not of
    those that it takes: 0.25 of 4096 evicts nothing from a thought of 900. The table says how many
    slots were in use. A file of questions ends in .jsonl, .json, .csv or .parquet.
    """
    from sparing.tasks.find import find_tasks
    from sparing.tasks.forms import Fields

    decoding.check_for(loading)
    tasks = find_tasks(task, Fields(question_field, answer_field))
    from sparing.evaluate import accuracy
    from sparing.evaluate.batch_generate import Settings

    settings = Settings(
        **decoding.options(), raw=raw, batch_size=batch_size, sample_seed=sample_seed
    )
    experiment = accuracy.AccuracyExperiment(tasks, n, seed, settings, thoughts)
    fingerprint = experiment.fingerprint(model_fingerprint(loading))
    if content := out.finished(fingerprint):
        show(content)
    else:
        part = out.part(fingerprint)
        engine = loading.load()
        with kept_rows(part), working.runner(loading, experiment.run) as runner:
            content = accuracy.evaluate(engine, experiment, part, Progress(), runner)
        content = {"model": loading.model, **content, "fingerprint": fingerprint}
        show(content)
        out.finish(content, part)
    out.write_csv(content["rows"])


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
    table = Table("task", "n", "accuracy", "95 %", "cut\noff", *costs)
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
    for note in notes(content):
        console.print(note, highlight=False)


def notes(content: Mapping[str, Any]) -> Iterator[str]:
    """What cut answers off, and what the memory was."""
    every, policy = content["all"], content["policy"]
    reasons, budget = every["finish_reasons"], every["budget"]
    if every["cut_off"]:
        cut = {reason: remedy for reason, remedy in REMEDIES.items() if reason in reasons}
        why = ", ".join(f"{reasons[reason]} by {reason}" for reason in cut)
        does = "; ".join(cut.values())
        yield f"cut off: {every['cut_off']} of {every['n']} ({why}); {does}"
    used = f"at most {every['slots_peak']:,} in use"
    if budget is None:
        yield f"memory: policy {policy}, no budget, slots {used}"
        return
    low, mean, high = (f"{budget[name]:,.0f}" for name in ("low", "mean", "high"))
    slots = f"{low} slots" if low == high else f"{low} to {high} slots (mean {mean})"
    evictions = f"{every['evictions']:.1f} evictions a problem"
    yield f"memory: policy {policy}, budget {slots}, {used}, {evictions}"
    if not every["evictions"] and "budget" not in reasons:
        yield "no problem reached the budget: nothing was evicted; pass a smaller --budget"


def cells(figures: Mapping[str, Any]) -> list[str]:
    """A summary's figures as text; a dash where nothing was solved."""
    per_solved, kv_per_solved = figures["seconds_per_solved"], figures["kv_bytes_peak_per_solved"]
    return [
        str(figures["n"]),
        f"{figures['accuracy']:.1%}",
        f"{figures['low']:.1%} to {figures['high']:.1%}",
        str(figures["cut_off"]),
        f"{figures['thinking_tokens']:.0f}",
        f"{figures['seconds']:.2f}",
        "-" if per_solved is None else f"{per_solved:.2f}",
        megabytes(figures["kv_bytes_peak"]),
        "-" if kv_per_solved is None else megabytes(kv_per_solved),
    ]
