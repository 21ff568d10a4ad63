"""`sparing compare`: two evaluations of the same problems, B minus A."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sparing.cli.fields import flag
from sparing.cli.output import show_cells
from sparing.cli.tabled import TabledFlag

COST_LABELS = {  # with what a mean is divided by, and its format
    "new_tokens": ("new tokens", 1, ".0f"),
    "thinking_tokens": ("thinking tokens", 1, ".0f"),
    "seconds": ("seconds", 1, ".2f"),
    "kv_bytes_peak": ("KV MB", 1e6, ".1f"),
}


def compare(
    a: Annotated[Path, typer.Argument(help="the --json of a `sparing eval`")],
    b: Annotated[Path, typer.Argument(help="another, of the same problems")],
    out: TabledFlag,
    texts: Annotated[
        int, flag("problems to show that only one solved, with both answers", min=0)
    ] = 0,
) -> None:
    """Compare two evaluations, problem by problem.

    Differences are B minus A, in accuracy and in costs, with 95 % intervals.
    """
    from sparing.evaluate.compare import compare as compare_files
    from sparing.evaluate.compare import pair_rows, read_pairs

    content = compare_files(a, b, texts)
    names = labels(a, b)
    if content["other_model"]:
        typer.echo("warning: the models differ, so a difference is not a setting's alone", err=True)
    for line in differing(content["settings"], names):
        typer.echo(line)
    show_cells([header(names), *rows(content)])
    if content["costs"]:
        show_cells([["a problem, mean", *names, "difference", "95 %"], *cost_rows(content)])
    for line in told_apart(content["texts"], names):
        typer.echo(line)
    out.write(content)
    if out.csv:
        out.write_csv(pair_rows(read_pairs(a, b)[2]))


def labels(a: Path, b: Path) -> tuple[str, str]:
    """The files' names; with their directories where they have the same one."""
    return (a.stem, b.stem) if a.stem != b.stem else (str(a), str(b))


def differing(settings: Mapping[str, Any], names: tuple[str, str]) -> Iterator[str]:
    """A line a setting that differs."""
    for setting, both in settings.items():
        in_a, in_b = ("none" if value is None else value for value in both)
        yield f"{setting}: {in_a} in {names[0]}, {in_b} in {names[1]}"


def header(names: tuple[str, str]) -> list[str]:
    a, b = names
    return ["task", "n", a, b, "difference", "95 %", f"only {a}", f"only {b}"]


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


def cost_rows(content: Mapping[str, Any]) -> list[list[str]]:
    """A line a cost, over all problems."""
    found = []
    for cost, figures in content["costs"].items():
        label, unit, form = COST_LABELS[cost]
        told = {name: value / unit for name, value in figures.items()}
        interval = f"{told['low']:+{form}} to {told['high']:+{form}}"
        means = [f"{told[name]:{form}}" for name in ("a", "b")]
        found.append([label, *means, f"{told['difference']:+{form}}", interval])
    return found


def told_apart(texts: list[Mapping[str, Any]], names: tuple[str, str]) -> Iterator[str]:
    """Problems that only one solved: the question, and both answers."""
    for text in texts:
        solver = names[0] if text["solved"] == "a" else names[1]
        yield f"\n{text['task']} {text['id']}, solved by {solver} alone: {text['question']}"
        yield f"  reference: {text['reference']}"
        for name, answer in zip(names, (text["answer_a"], text["answer_b"]), strict=True):
            yield f"  {name}: {answer or 'no answer'}"
