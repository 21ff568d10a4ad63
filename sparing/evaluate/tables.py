"""The README's tables, made from the files in ``results/``."""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparing.evaluate.report import against_bar

UNIFORM = ("h2o", "snapkv", "rkv")  # per layer and head in their papers, one set for all here


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
    file, model = path.with_name("bars.json"), content.get("model")
    if model is None or not file.exists():
        return content
    _, _, command, *_ = content["command"].split()
    found: dict[str, float] = {}
    for name, bars in json.loads(file.read_text()).get(command, {}).items():
        if Path(model).name.lower().startswith(name):
            found |= bars
    rows = [row | {"bar": found.get(row["name"], row["bar"])} for row in content["rows"]]
    return content | {"rows": rows}


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


def memory_cells(content: dict[str, Any]) -> list[list[str]]:
    """A header, a row for the full cache and one a policy; columns: share by share its levels."""
    found = {row["name"]: row["value"] for row in content["rows"]}
    plan = content["raw"]["plan"]
    levels = [level for level in ("standard", "hard") if f"accuracy/full/{level}" in found]
    columns = [(f"{share:g}", level) for share in plan["shares"] for level in levels]
    header = ["policy", *(f"{level} at {share}" for share, level in columns)]
    full = ["full cache", *(f"{found[f'accuracy/full/{level}']:.1%}" for _, level in columns)]
    rows = [
        [policy_label(p), *(f"{found[f'accuracy/{p}/{s}/{level}']:.1%}" for s, level in columns)]
        for p in plan["policies"]
    ]
    return [header, full, *rows]


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


def latent_cells(content: dict[str, Any], arms: Sequence[str]) -> list[list[str]]:
    """A header and a row an arm: how many seeds of it were trained, accuracy, the difference to cot
    over the seeds that both have, and what a problem takes."""
    found = {row["name"]: row for row in content["rows"]}
    trained = [model.partition(",")[0] for model in content["raw"]["plan"]["models"]]
    header = ["arm", "seeds", "solved", "minus cot (95 %)",
              "text tokens", "latents", "steps", "seconds"]  # fmt: skip
    rows = []
    for arm in arms:
        paired = found.get(f"paired_vs_cot/{arm}")
        minus = "" if paired is None else (
            f"{paired['value']:+.1%} ({paired['low']:+.1%} to {paired['high']:+.1%})"
        )  # fmt: skip
        costs = [
            found[f"{cost}/{arm}"]["value"] for cost in ("text_tokens", "latent_tokens", "steps")
        ]
        rows.append(
            [
                arm,
                str(trained.count(arm)),
                f"{found[f'accuracy/{arm}']['value']:.1%}",
                minus,
                *(f"{cost:.1f}" for cost in costs),
                f"{found[f'seconds/{arm}']['value']:.3f}",
            ]
        )
    return [header, *rows]


def policy_label(policy: str) -> str:
    """Its name, and where it is not quite what its paper describes."""
    return f"{policy} (uniform variant)" if policy in UNIFORM else policy


def tree(root: str = "sparing") -> str:
    """The package with a line a file: the first sentence of each."""
    lines = []
    for path in sorted(Path(root).rglob("*.py"), key=lambda path: (path.parent, path.stem)):
        said = ast.get_docstring(ast.parse(path.read_text())) or ""
        paragraph = " ".join(said.partition("\n\n")[0].split())
        first = re.split(r"\.\s+(?=[A-Z])", paragraph)[0].rstrip(".")
        here = path.parent if path.stem == "__init__" else path
        depth = len(here.relative_to(root).parts)
        name = here.name + "/" * (here != path)
        lines.append(f"{'  ' * depth}{name:<24}{first}".rstrip())
    return "\n".join(["```", *lines, "```"]) + "\n"


def line(row: dict[str, Any]) -> str:
    """One figure as a table row; a missed bar says so."""
    unit = " x" if row["unit"] == "x" else ""
    bar, missed = against_bar(row)
    return f"| {row['what']} | {row['value']:.2f}{unit} | {bar} | {missed} |"
