"""Sparing as ``baselines/scripts/serve.py`` runs it: another engine in another process."""

import resource
import sys
import time
from typing import Any

import psutil

from sparing.api import load
from sparing.evaluate.own import Own


class Baseline(Own):
    """An engine that is yet to be loaded."""

    def __init__(self) -> None:
        load("pocket")  # so that all packages are there

    def load(self, model: str, threads: int, **options: Any) -> dict[str, float]:
        """Seconds, and bytes of memory before it and at the peak."""
        before = psutil.Process().memory_info().rss
        begun = time.perf_counter()
        super().__init__(load(model, threads=threads, **options))
        seconds = time.perf_counter() - begun
        return {"seconds": seconds, "before_bytes": before, "peak_bytes": peak_bytes()}


def peak_bytes() -> int:
    """Of this process, since its start; Linux counts in KB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
