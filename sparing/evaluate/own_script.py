"""Sparing as ``baselines/scripts/serve.py`` runs it: another engine in another process."""

import gc
import resource
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from sparing.api import load
from sparing.evaluate.own import Own
from sparing.malloc import give_back

CLEAR = Path("/proc/self/clear_refs")


class OwnEngine(Own):
    """An engine that is yet to be loaded."""

    def __init__(self) -> None:
        load("pocket")  # so that all packages are there

    def load(self, model: str, threads: int, **options: Any) -> dict[str, float]:
        """Seconds, and bytes of memory before it and at the peak."""
        gc.collect()
        give_back()  # freed memory of the packages would hide what the load takes
        before = psutil.Process().memory_info().rss
        reset_peak()  # it was the parent's too
        begun = time.perf_counter()
        super().__init__(load(model, threads=threads, **options))
        seconds = time.perf_counter() - begun
        return {"seconds": seconds, "before_bytes": before, "peak_bytes": peak_bytes()}


def reset_peak() -> None:
    """Begin the peak of memory anew, where Linux can do that."""
    if CLEAR.exists():
        CLEAR.write_text("5")


def peak_bytes() -> int:
    """Of this process, since it was reset where Linux can do that."""
    if CLEAR.exists():
        status = CLEAR.with_name("status").read_text().splitlines()
        return 1024 * int(next(line for line in status if line.startswith("VmHWM")).split()[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024)


Baseline = OwnEngine  # the name that serve.py looks for
