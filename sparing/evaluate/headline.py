"""Reports of `sparing bench all` read as one table: every arm of every model."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparing.errors import OptionError, reason
from sparing.evaluate.report import origin_line

BESIDE = {"time_vs_openvino": "time over OpenVINO", "time_vs_llama_cpp": "time over llama.cpp"}
HEADLINE = (  # what the table takes of an arm
    "time_vs_transformers",
    "token_time_vs_transformers",
    "kv_bytes_vs_transformers",
    *BESIDE,
    "text_tokens",
    "distinct4",
    "accuracy",
)
ARM_LABELS = {
    "transformers": "transformers",
    "transformers-lookup": "transformers, prompt lookup",
    "llama-cpp": "llama.cpp",
    "openvino": "OpenVINO GenAI",
    "openvino-eviction": "OpenVINO GenAI, its eviction",
    "off": "everything off",
}


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
    beside = {
        name: header
        for name, header in BESIDE.items()
        if any(f"{name}/off" in content["values"] for content in contents)
    }
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
            rows.append(cells + [share_of(found[name]) for name in beside])
    return [[*header, *beside.values()], *rows]


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
    """An arm for readers."""
    return ARM_LABELS.get(arm, arm.replace("+", " + "))


def share_of(row: Mapping[str, Any] | None) -> str:
    """A ratio in per cent; empty for None."""
    if row is None:
        return ""
    return f"{100 * row['value']:.0f} %" if row["value"] >= 0.1 else f"{100 * row['value']:.1f} %"


def solved_cell(row: Mapping[str, Any] | None) -> str:
    """With its 95 % interval; empty without a grader."""
    return "" if row is None else f"{row['value']:.0%} ({row['low']:.0%} to {row['high']:.0%})"
