"""Find a task by name: pocket's families, reasoning-gym, files, hub data sets."""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from os.path import isfile
from pathlib import Path

from sparing.errors import OptionError
from sparing.tasks.datasets import RowsTask, file_rows, hub_rows
from sparing.tasks.families import FAMILIES, HARD, STANDARD
from sparing.tasks.files import SUFFIXES, check_suffix
from sparing.tasks.forms import AUTO, Fields
from sparing.tasks.gym import GymTask, gym_names
from sparing.tasks.problem import Task

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
LEVELS = {"pocket": STANDARD, "pocket-hard": HARD}


def find_tasks(name: str, fields: Fields = AUTO) -> list[Task]:
    """The tasks of a name, or of several names separated by commas, without repeats.

    A name is ``pocket`` or ``pocket-hard`` (all families at that level), a family (``legs``,
    ``legs-hard``), a .json, .jsonl, .csv or .parquet file, a hub id ``org/name``, or a
    reasoning-gym data set. ``fields``: of all files and hub data sets among them.

    Raises OptionError with the nearest names for any other name, and for fields without rows.
    """
    names = [name] if isfile(name) else [part.strip() for part in name.split(",")]
    tasks = {task.name: task for part in names for task in find(part, fields)}
    if fields != AUTO and not any(isinstance(task, RowsTask) for task in tasks.values()):
        raise OptionError(
            f"--question-field and --answer-field are of a file or a hub data set, got {name}; "
            "leave them out"
        )
    return list(tasks.values())


def find(name: str, fields: Fields = AUTO) -> Iterator[Task]:
    """The tasks of one name."""
    families = family_tasks()
    if name in LEVELS:
        yield from (families[family + suffix(LEVELS[name])] for family in FAMILIES)
    elif name in families:
        yield families[name]
    elif name.lower().endswith(SUFFIXES):
        yield RowsTask.of(name, file_rows(Path(name)), fields)
    elif HUB_ID.fullmatch(name) and not isfile(name):
        yield RowsTask.of(name, hub_rows(name), fields)
    elif name in gym_names():
        yield GymTask(name, name)
    elif isfile(name):
        check_suffix(Path(name))
    else:
        raise unknown(name)


def family_tasks() -> dict[str, Task]:
    """Every family at every level of the evaluation, by name."""
    return {
        name + suffix(level): GymTask(name + suffix(level), family.dataset, family.config(level))
        for name, family in FAMILIES.items()
        for level in LEVELS.values()
    }


def suffix(level: str) -> str:
    return "" if level == STANDARD else f"-{level}"


def unknown(name: str) -> OptionError:
    """The error for an unknown task, with the nearest names."""
    known = dict.fromkeys([*LEVELS, *family_tasks(), *gym_names()])
    near = get_close_matches(name, known, n=5, cutoff=0.5)
    near = near if get_close_matches(name, near, n=1, cutoff=0.6) else []
    hint = f"did you mean {', '.join(near)}?" if near else f"families: {', '.join(FAMILIES)}"
    return OptionError(
        "a task must be pocket, pocket-hard, a family, a reasoning-gym name, a file "
        f"({', '.join(SUFFIXES)}) or a hub id org/name, got {name!r}; {hint}"
    )
