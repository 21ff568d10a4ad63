"""The tables of README and docs, made from the files in ``results/``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparing.evaluate.bench_latent import latent_cells
from sparing.evaluate.bench_memory import memory_cells
from sparing.evaluate.headline import headline_cells, headline_note, read_headlines

DEFAULT_MODEL = "pocket"  # of reports without a model, whose command names none


def grid(rows: Sequence[Sequence[str]]) -> str:
    """Cells as a Markdown table, the first row its header."""
    first, *lines = [f"| {' | '.join(cells)} |" for cells in rows]
    return "\n".join([first, "|---" * len(rows[0]) + "|", *lines]) + "\n"


def markdown(path: str, *, bars: bool = False) -> str:
    """A benchmark's figures beside their bars, and where and how they were taken; ``bars``: only
    those figures that have one."""
    content = judged(Path(path))
    lines = ["| measured | value | bar | |", "|---|---|---|---|"]
    lines += [line(row) for row in content["rows"] if row["bar"] is not None or not bars]
    versions = content["versions"]
    lines += [
        "",
        f"`{content['command']}` at commit {content['commit']}: {content['machine']}, "
        f"{content['threads']} threads, {content['dtype']}, torch {versions['torch']}, "
        f"transformers {versions['transformers']}.",
    ]
    return "\n".join(lines) + "\n"


def judged(path: Path) -> dict[str, Any]:
    """A report, its rows with the bars of ``bars.json`` beside it.

    There they lie by command, by how a model's name begins (none: every model's) and by row.
    """
    content = json.loads(path.read_text())
    file = path.with_name("bars.json")
    if not file.exists():
        return content
    command, model = content["command"].split()[2], model_of(content)
    bars: dict[str, float] = {}
    for name, of_rows in json.loads(file.read_text()).get(command, {}).items():
        if model.startswith(name):
            bars |= of_rows
    rows = [row | {"bar": bars.get(row["name"], row["bar"])} for row in content["rows"]]
    return content | {"rows": rows}


def model_of(content: Mapping[str, Any]) -> str:
    """The name of a report's model in small letters; older reports say it in their command."""
    named = content.get("model")
    if named is None:
        _, given, rest = content["command"].partition("--model ")
        named = rest.split()[0] if given else DEFAULT_MODEL
    return Path(named).name.lower()


def accuracy_table(path: str) -> str:
    """Pocket's accuracy: a line a family, standard and hard, and with less thinking."""
    rows = {row["name"]: row for row in json.loads(Path(path).read_text())["rows"]}
    families = [n.removeprefix("no_think/") for n in rows if n.startswith("no_think/")]
    lines = [
        "| family | standard | its thinking | hard | its thinking | half the thinking | none |",
        "|---|---|---|---|---|---|---|",
    ]
    for family in families:
        names = (
            f"accuracy/{family}",
            f"thinking_tokens/{family}",
            f"accuracy/{family}-hard",
            f"thinking_tokens/{family}-hard",
            f"half_think/{family}",
            f"no_think/{family}",
        )
        values = [rows[name]["value"] for name in names]
        shown = [f"{v:.0f}" if v > 1 else f"{v:.1%}" for v in values]
        lines.append(f"| {family} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def agreement_table(path: str, controls: str) -> str:
    """How often pocket says the same with sub-layers left out, and short trainings with and without
    layer dropout, which are in another report."""
    lines = ["| sub-layers skipped | pocket | with layer dropout | without |", "|---|---|---|---|"]
    rows, others = (
        {row["name"]: row["value"] for row in json.loads(Path(file).read_text())["rows"]}
        for file in (path, controls)
    )
    for share in (50, 70):
        name = f"agreement/{share}"
        values = [rows[name], others[f"{name}/short_with"], others[f"{name}/short_without"]]
        lines.append(f"| {share} % | {' | '.join(f'{value:.1%}' for value in values)} |")
    return "\n".join(lines) + "\n"


def memory_table(path: str) -> str:
    """What each policy solves at each share of the thoughts' room, beside the full cache."""
    return grid(memory_cells(json.loads(Path(path).read_text())))


def depth_table(path: str) -> str:
    """The drafters of `sparing bench depth`, a column each: speed over plain decoding, group by
    group, with 95 % intervals where it is a mean, and what it is made of."""
    content = json.loads(Path(path).read_text())
    found = {row["name"]: row for row in content["rows"]}
    groups = list(dict.fromkeys(run["group"] for run in content["raw"]["runs"]))
    drafters = [name.split("/")[1] for name in found if name.startswith("same/")]
    batch = next((n for n in found if n.startswith("speedup/hybrid/batch")), None)
    lines = [
        *((group, f"speedup/{{}}/{group}") for group in groups),
        ("**mean**", "speedup/{}/mean"),
        ("over transformers.generate", "vs_transformers/{}/mean"),
        ("over its prompt lookup", "vs_transformers_lookup/{}/mean"),
        *([(f"mean, {batch.partition('batch')[2]} rows at a time", batch)] if batch else []),
        ("a cold start, 512 tokens", "speedup_cold/{}"),
        ("tokens a pass of the full model", "accepted_length/{}/mean"),
        ("drafted tokens accepted", "acceptance/{}/mean"),
    ]
    rows = [
        [label, *(depth_cell(found, name, drafter) for drafter in drafters)]
        for label, name in lines
    ]
    return grid([["speed over plain decoding", *drafters], *rows])


def depth_cell(found: Mapping[str, Mapping[str, Any]], name: str, drafter: str) -> str:
    """A drafter's figure with its interval; empty where there is none."""
    row = found.get(name.format(drafter))
    if row is None or ("{}" not in name and f"/{drafter}/" not in name):
        return ""
    if row["unit"] == "share":
        return f"{row['value']:.0%}"
    interval = "" if row["low"] is None else f" ({row['low']:.2f} to {row['high']:.2f})"
    return f"{row['value']:.2f}{interval if '/mean' in name or 'batch' in name else ''}"


def latent_table(path: str) -> str:
    """The arms of `sparing bench latent`, a line each."""
    content = json.loads(Path(path).read_text())
    arms = [name.partition("/")[2] for name in (row["name"] for row in content["rows"])
            if name.startswith("accuracy/") and name.count("/") == 1]  # fmt: skip
    return grid(latent_cells(content, arms))


def headline_table(*paths: str) -> str:
    """The reports of `sparing bench all`, one a model, as one table; below it where each comes
    from, and what was left out."""
    contents = read_headlines(paths)
    notes = [f"\n{headline_note(content)}\n" for content in contents]
    return "".join([grid(headline_cells(contents)), *notes])


def line(row: Mapping[str, Any]) -> str:
    """One figure as a table row; a missed bar says so."""
    unit = " x" if row["unit"] == "x" else ""
    bar, missed = against_bar(row)
    return f"| {row['what']} | {row['value']:.2f}{unit} | {bar} | {missed} |"


def against_bar(row: Mapping[str, Any]) -> tuple[str, str]:
    """The bar of a row as text, and whether it was missed; both empty without a bar."""
    if row["bar"] is None:
        return "", ""
    higher = row["better"] == "higher"
    met = row["value"] >= row["bar"] if higher else row["value"] <= row["bar"]
    return f"{'>=' if higher else '<='} {row['bar']}", "" if met else "missed"
