"""The README's tables, made from the files in ``results/``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparing.evaluate.report import against_bar

UNIFORM = ("h2o", "snapkv", "rkv")  # per layer and head in their papers, one set for all here


def markdown(path: str) -> str:
    """A benchmark's figures beside their bars, and where and how they were taken."""
    content = json.loads(Path(path).read_text())
    lines = ["| measured | value | bar | |", "|---|---|---|---|"]
    lines += [line(row) for row in content["rows"]]
    versions = content["versions"]
    lines += [
        "",
        f"`{content['command']}` at commit {content['commit']}: {content['machine']}, "
        f"{content['threads']} threads, {content['dtype']}, torch {versions['torch']}, "
        f"transformers {versions['transformers']}.",
    ]
    return "\n".join(lines) + "\n"


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
    header, *rows = memory_cells(json.loads(Path(path).read_text()))
    first, *lines = [f"| {' | '.join(cells)} |" for cells in (header, *rows)]
    return "\n".join([first, "|---" * len(header) + "|", *lines]) + "\n"


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


def latent_table(path: str) -> str:
    """The arms of `sparing bench latent`, a line each."""
    content = json.loads(Path(path).read_text())
    arms = [name.partition("/")[2] for name in (row["name"] for row in content["rows"])
            if name.startswith("accuracy/") and name.count("/") == 1]  # fmt: skip
    header, *rows = latent_cells(content, arms)
    first, *lines = [f"| {' | '.join(cells)} |" for cells in (header, *rows)]
    return "\n".join([first, "|---" * len(header) + "|", *lines]) + "\n"


def latent_cells(content: dict[str, Any], arms: Sequence[str]) -> list[list[str]]:
    """A header and a row an arm: accuracy, the difference to cot, and what a problem takes."""
    found = {row["name"]: row for row in content["rows"]}
    header = ["arm", "solved", "minus cot (95 %)", "text tokens", "latents", "steps", "seconds"]
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


def line(row: dict[str, Any]) -> str:
    """One figure as a table row; a missed bar says so."""
    unit = " x" if row["unit"] == "x" else ""
    bar, missed = against_bar(row)
    return f"| {row['what']} | {row['value']:.2f}{unit} | {bar} | {missed} |"
