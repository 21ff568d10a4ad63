"""The README's tables, made from the files in ``results/``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparing.errors import OptionError, reason
from sparing.evaluate.report import against_bar, origin_line

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


def headline_table(*paths: str) -> str:
    """The reports of `sparing bench all`, one a model, as one table; below it where each comes
    from, and what was left out."""
    contents = read_headlines(paths)
    header, *rows = headline_cells(contents)
    first, *lines = [f"| {' | '.join(cells)} |" for cells in (header, *rows)]
    notes = [note for content in contents for note in ("", headline_note(content))]
    return "\n".join([first, "|---" * len(header) + "|", *lines, *notes]) + "\n"


def read_headlines(paths: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Raises OptionError for a file that is no report of `sparing bench all`."""
    contents = []
    for path in paths:
        try:
            contents.append(as_headline(json.loads(Path(path).read_text())))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OptionError(
                f"{path} must be a report of `sparing bench all`, got: {reason(error)}; "
                "make it with --json"
            ) from None
    return contents


def as_headline(content: dict[str, Any]) -> dict[str, Any]:
    """A report of `sparing bench all` with its ``arms`` and its ``values``, rows by name."""
    values = {row["name"]: row for row in content["rows"]}
    arms = list(content["raw"]["rows"])
    missing = [arm for arm in arms if f"distinct4/{arm}" not in values]
    if missing or not arms:
        raise ValueError("no distinct4, which all its arms have")
    return content | {"arms": arms, "values": values}


def headline_cells(contents: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A header and a row for each arm of each model; shares are of transformers' figures."""
    compared = ("time", "token_time", "kv_bytes")
    header = ["model", "", "time", "time a token", "KV bytes", "words", "distinct-4", "solved"]
    beside = any("time_vs_openvino/off" in content["values"] for content in contents)
    rows = []
    for content in contents:
        for arm in content["arms"]:
            found = {name: content["values"].get(f"{name}/{arm}") for name in HEADLINE}
            shares = [share_of(found[f"{name}_vs_transformers"]) for name in compared]
            if arm == "transformers":
                shares = ["100 %"] * len(compared)
            words, new = found["text_tokens"]["value"], found["distinct4"]["value"]
            cells = [model_label(content), arm_label(arm), *shares, f"{words:,.0f}", f"{new:.2f}"]
            cells.append(solved_cell(found["accuracy"]))
            rows.append(cells + [share_of(found["time_vs_openvino"])] * beside)
    return [header + ["time over OpenVINO"] * beside, *rows]


HEADLINE = (  # what the table takes of an arm
    "time_vs_transformers",
    "token_time_vs_transformers",
    "kv_bytes_vs_transformers",
    "time_vs_openvino",
    "text_tokens",
    "distinct4",
    "accuracy",
)


def headline_note(content: Mapping[str, Any]) -> str:
    """A model's: what was asked, where it was measured, what is missing and why."""
    raw = content["raw"]
    plan = raw["plan"]
    how = (
        "greedy" if plan["greedy"] else f"sampled (T {plan['temperature']}, top-p {plan['top_p']})"
    )
    count = len(plan["problems"])
    asked = f"{count} answer{'s' * (count > 1)} of {plan['new_tokens']:,} tokens"
    if plan["tasks"]:
        asked = f"{count} problems of {', '.join(plan['tasks'])}, each to its end"
    budget = plan["budget"]
    room = f"{budget} slots" if isinstance(budget, int) else f"{budget:g} of the full thought"
    missing = "".join(f" No {n}: {why}." for n, why in raw["left_out"].items())
    return (
        f"{model_label(content)}: {asked}, {how}, budget {room} ({raw['policy']}), batch 1. "
        f"`{content['command']}`, {origin_line(content)}.{missing}"
    )


def model_label(content: Mapping[str, Any]) -> str:
    return Path(content["model"]).name


def arm_label(arm: str) -> str:
    """An arm of `sparing bench all` as a reader is told of it."""
    return ARM_LABELS.get(arm, arm.replace("+", " + "))


ARM_LABELS = {
    "transformers": "transformers",
    "transformers-lookup": "transformers, prompt lookup",
    "openvino": "OpenVINO GenAI",
    "off": "everything off",
}


def share_of(row: Mapping[str, Any] | None) -> str:
    """A ratio in per cent; empty where there is none."""
    if row is None:
        return ""
    return f"{100 * row['value']:.0f} %" if row["value"] >= 0.1 else f"{100 * row['value']:.1f} %"


def solved_cell(row: Mapping[str, Any] | None) -> str:
    """With its 95 % interval; empty where nobody grades."""
    return "" if row is None else f"{row['value']:.0%} ({row['low']:.0%} to {row['high']:.0%})"


def policy_label(policy: str) -> str:
    """Its name, and where it is not quite what its paper describes."""
    return f"{policy} (uniform variant)" if policy in UNIFORM else policy


def line(row: dict[str, Any]) -> str:
    """One figure as a table row; a missed bar says so."""
    unit = " x" if row["unit"] == "x" else ""
    bar, missed = against_bar(row)
    return f"| {row['what']} | {row['value']:.2f}{unit} | {bar} | {missed} |"
