"""The README's tables, made from the files in ``results/``."""

import json
from pathlib import Path
from typing import Any

from sparing.evaluate.report import against_bar


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


def line(row: dict[str, Any]) -> str:
    """One figure as a table row; a missed bar says so."""
    unit = " x" if row["unit"] == "x" else ""
    bar, missed = against_bar(row)
    return f"| {row['what']} | {row['value']:.2f}{unit} | {bar} | {missed} |"
