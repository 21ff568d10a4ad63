"""Processes that share a benchmark's rows out: for a small model, two on a thread each do half as
much again as one on two threads."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from multiprocessing import get_context, parent_process
from threading import Thread
from types import TracebackType
from typing import Any

import torch

from sparing.evaluate.bench_memory_rows import run

Run = Callable[[Any, Any, Any], Iterator[Any]]  # what was loaded, the plan and a job: its rows
_here: dict[str, Any] = {}  # of a worker: load, plan, run, threads


class Workers:
    """A context manager. ``load``: gives what ``run`` needs for its jobs, an engine; it can be
    pickled, as ``plan`` and ``run`` can."""

    def __init__(self, count: int, load: Callable[[], Any], plan: Any, run_job: Run = run) -> None:
        threads = max(torch.get_num_threads() // count, 1)
        self._pool = get_context("spawn").Pool(count, _begin, (load, plan, run_job, threads))

    def __call__(self, jobs: Sequence[Any]) -> Iterator[Any]:
        """Rows job by job, in the order in which jobs end."""
        for done in self._pool.imap_unordered(_run, jobs):
            yield from done

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.terminate()


def _begin(load: Callable[[], Any], plan: Any, run_job: Run, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    Thread(target=_end_with_parent, daemon=True).start()
    _here.update(load=load, plan=plan, run=run_job, threads=threads)


def _end_with_parent() -> None:
    """A parent that was killed has no time to tell; nobody would take the rows."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@cache
def _loaded() -> Any:
    """Loaded by the first job, whose error reaches whoever asked; an initializer's would not."""
    torch.set_num_threads(_here["threads"])
    loaded = _here["load"]()
    torch.set_num_threads(_here["threads"])  # whatever ``load`` said
    return loaded


def _run(job: Any) -> list[Any]:
    return list(_here["run"](_loaded(), _here["plan"], job))
