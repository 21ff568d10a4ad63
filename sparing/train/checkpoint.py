"""Checkpoints of a run, always complete; the step is in the name."""

import logging
import re
import shutil
from pathlib import Path
from typing import Any

NAME = re.compile(r"step-(\d+)")
KEPT = 2


def save(accelerator: Any, out: Path, step: int) -> None:
    """Write ``out/step-N``, first under another name, and remove all but the last ``KEPT``."""
    if step in steps(out):
        return  # complete and equal: a run has one state at each step
    final, partial = out / f"step-{step}", out / f"step-{step}.partial"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    # accelerate would warn at each checkpoint that it writes tied weights once
    logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        partial.rename(final)
        for old in steps(out)[:-KEPT]:
            remove(out / f"step-{old}")
    accelerator.wait_for_everyone()


def restore(accelerator: Any, out: Path) -> int:
    """Load the newest checkpoint into the prepared objects; returns its step, or 0 without one."""
    found = steps(out)
    if not found:
        return 0
    accelerator.load_state(str(out / f"step-{found[-1]}"))
    return found[-1]


def steps(out: Path) -> list[int]:
    """The steps with a complete checkpoint, in order."""
    matches = (NAME.fullmatch(path.name) for path in out.glob("step-*") if path.is_dir())
    return sorted(int(match[1]) for match in matches if match)


def clear(out: Path) -> None:
    """Remove all checkpoints and partial files of a finished run."""
    for path in {*out.glob("step-*"), *out.glob("*.partial")}:
        shutil.rmtree(path)


def remove(folder: Path) -> None:
    """Rename the folder, then remove it: an interrupted removal leaves no partial checkpoint."""
    removed = folder.with_suffix(".removed")
    shutil.rmtree(removed, ignore_errors=True)
    folder.rename(removed)
    shutil.rmtree(removed)
