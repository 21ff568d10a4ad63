"""Prompts: from a file, a task's questions, or pocket's own."""

import json
from pathlib import Path

from sparing.errors import OptionError, reason

CHAT = frozenset(  # categories of MT-bench, in Spec-Bench
    ["writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities"]
)


def check_one(task: str | None, prompts: Path | None) -> None:
    """Refuse a task and prompts at once, where either is what is asked."""
    if task and prompts:
        raise OptionError("a task or prompts must be given, got both; leave one out")


def task_or_pockets(task: str | None, prompts: Path | None, directory: Path) -> str | None:
    """The task; without one and without prompts pocket's own, for pocket."""
    from sparing.model.scope import SCOPE_FILE
    from sparing.tasks.families import POCKET_TASKS

    known = not task and not prompts and (directory / SCOPE_FILE).exists()
    return POCKET_TASKS if known else task


def needed_task(task: str | None, prompts: Path | None, directory: Path) -> str | None:
    """The same; raises OptionError where nothing is asked."""
    found = task_or_pockets(task, prompts, directory)
    if not found and not prompts:
        raise OptionError("a task or prompts must be given, got neither; pass --prompts FILE")
    return found


def read_prompts(path: Path) -> list[str]:
    """A prompt a line, as text or, in a .jsonl file, as an object with ``prompt`` or ``turns``."""
    return [prompt for found in read_groups(path).values() for prompt in found]


def read_groups(path: Path) -> dict[str, list[str]]:
    """The prompts of ``read_prompts``, by the ``category`` of each; where all of MT-bench's are
    there, as in Spec-Bench, those are one, chat, with a prompt of each in turn."""
    from sparing.evaluate.timing import alternating

    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
        groups: dict[str, list[str]] = {}
        for line in filter(None, lines):
            row = json.loads(line) if path.suffix == ".jsonl" else {"prompt": line}
            turns = [row["prompt"]] if "prompt" in row else row["turns"]
            if not isinstance(turns, list) or not isinstance(prompt := turns[0], str):
                raise TypeError(f"no text in {line}")
            groups.setdefault(row.get("category", path.stem), []).append(prompt)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise OptionError(
            f"--prompts must be a text file with a prompt a line, or a .jsonl file with prompt or "
            f"turns in each, got {path}: {reason(error)}"
        ) from None
    if not groups:
        raise OptionError(f"--prompts must hold a prompt or more, got none in {path}")
    if not groups.keys() >= CHAT:
        return groups
    parts = [groups.pop(name) for name in list(groups) if name in CHAT]
    return {"chat": alternating(parts), **groups}
