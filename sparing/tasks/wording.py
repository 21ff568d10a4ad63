"""The question of a data set's entry, and a key for entries with the same problem."""

import json
import re
from typing import Any

# reasoning-gym repeats its instructions in every question. Pocket has learnt the form of the
# answers, so they are removed. Questions of other data sets are not changed.
BOILERPLATE = {
    "leg_counting": re.compile(r"^Your task is .*\n\nNow, |\n$"),
    "countdown": re.compile(r"\n.*", re.DOTALL),
    "chain_sum": re.compile(r"^State the final answer to the following arithmetic problem: | =$"),
}
SIGNED = re.compile(r"[+-]?\d+")


def wording(dataset: str, entry: dict[str, Any]) -> str:
    """The question of a reasoning-gym entry for pocket, without boilerplate."""
    question = str(entry["question"])
    if dataset not in BOILERPLATE:
        return question.strip()
    question = BOILERPLATE[dataset].sub("", question)
    if dataset == "chain_sum":
        question = f"What is {question}?"
    return question[:1].upper() + question[1:]


def key(dataset: str, entry: dict[str, Any]) -> str:
    """A key that is equal for entries with the same problem in other words or another order."""
    metadata = entry["metadata"]
    if dataset == "leg_counting":
        content: Any = sorted(metadata["animals"].items())
    elif dataset == "countdown":
        content = [sorted(metadata["numbers"]), metadata["target"]]
    elif dataset == "chain_sum":
        content = sorted(map(int, SIGNED.findall(metadata["expression"].replace(" ", ""))))
    elif dataset == "time_intervals":
        moments = [metadata["start_time"], metadata["end_time"]]
        if metadata["task_type"].startswith("time"):  # the date is the day of the draw
            moments = [moment.partition(" ")[2] for moment in moments]
        content = [metadata["expected_format"], *moments]
    else:
        content = entry["question"]
    return f"{dataset}:{json.dumps(content)}"
