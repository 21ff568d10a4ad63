"""Checkpoints of a run: complete or absent, the newest found by its number."""

import logging
import re
import shutil
from pathlib import Path
from typing import Any

NAME = re.compile(r"step-(\d+)")
KEPT = 2


def save(accelerator: Any, out: Path, step: int) -> None:
    """Write ``out/step-N``: into a folder beside it first, then renamed; older ones go."""
    if step in steps(out):
        return  # whole, and the same: a run has one state at each step
    final, partial = out / f"step-{step}", out / f"step-{step}.partial"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    # Or it says at each checkpoint that it writes tied weights once.
    logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        partial.rename(final)
        for old in steps(out)[:-KEPT]:
            remove(out / f"step-{old}")
    accelerator.wait_for_everyone()


def restore(accelerator: Any, out: Path) -> int:
    """Load the newest checkpoint into what was prepared; its step, 0 where there is none."""
    found = steps(out)
    if not found:
        return 0
    accelerator.load_state(str(out / f"step-{found[-1]}"))
    return found[-1]


def steps(out: Path) -> list[int]:
    """The steps with a whole checkpoint, in order."""
    matches = (NAME.fullmatch(path.name) for path in out.glob("step-*") if path.is_dir())
    return sorted(int(match[1]) for match in matches if match)


def clear(out: Path) -> None:
    """Remove all checkpoints and what is half written: the run is done, its weights are saved."""
    for path in {*out.glob("step-*"), *out.glob("*.partial")}:
        shutil.rmtree(path)


def remove(folder: Path) -> None:
    """Renamed first: what is removed in part counts no more."""
    removed = folder.with_suffix(".removed")
    shutil.rmtree(removed, ignore_errors=True)
    folder.rename(removed)
    shutil.rmtree(removed)
