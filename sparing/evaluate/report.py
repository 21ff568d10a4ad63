"""A benchmark's figures, with everything needed to judge them, as JSON."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparing import __version__
from sparing.files import write_atomically

if TYPE_CHECKING:
    import torch

REPORTED_PACKAGES = ("torch", "transformers", "tokenizers", "numpy")


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    ``what``: what it says, for readers.
    ``low``, ``high``: its 95 % interval, where one was computed.
    """

    name: str
    value: float
    unit: str
    better: str  # "higher" or "lower"
    what: str = ""
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        assert self.better in ("higher", "lower"), self.better


def report(
    model: str, figures: Sequence[Figure], raw: Mapping[str, Any], dtype: "torch.dtype"
) -> dict[str, Any]:
    """The figures of a model with what they are computed from and where they come from.

    ``bar``: what a figure was meant to reach; a report knows of none.
    """
    rows = [asdict(figure) | {"bar": None} for figure in figures]
    return {"model": without_home(model), "rows": rows, "raw": raw, **origin(dtype)}


def origin(dtype: "torch.dtype") -> dict[str, Any]:
    """Machine, threads, dtype, versions, commit and command."""
    import torch

    return {
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "dtype": str(dtype).removeprefix("torch."),
        "versions": {"python": platform.python_version(), "sparing": __version__}
        | {package: version(package) for package in REPORTED_PACKAGES},
        "commit": commit(),
        "command": " ".join(["sparing", *map(without_home, sys.argv[1:])]),
    }


def without_home(argument: str) -> str:
    """A file that is named from the root, which is of one machine, by its name alone."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def origin_line(content: Mapping[str, Any]) -> str:
    """Where a report's figures come from, in a line."""
    return (
        f"{content['machine']}, {content['threads']} threads, {content['dtype']}, "
        f"torch {content['versions']['torch']}, commit {content['commit']}"
    )


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write atomically: the file is the old one or the whole new one."""
    write_atomically(path, json_text(content))


def json_text(content: Mapping[str, Any]) -> str:
    """A line a key."""
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def machine() -> str:
    """Processor and number of cores."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    return f"{name}, {os.cpu_count()} cores"


def commit() -> str | None:
    """The commit of this source tree, marked where files differ from it; None outside git."""
    tree = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=tree,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip()
