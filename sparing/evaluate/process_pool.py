"""Processes that share an experiment's jobs: for a small model, two on a thread each do half as
much again as one on two threads."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any

import torch

Run = Callable[[Any, Any], Iterator[Any]]  # what was loaded and a job: its rows
_here: dict[str, Any] = {}  # of a worker: load, run, threads


class Workers:
    """A context manager and a runner. ``load`` gives what ``run`` needs for its jobs; both must
    pickle."""

    def __init__(self, count: int, load: Callable[[], Any], run: Run) -> None:
        self.workers = count
        threads = max(torch.get_num_threads() // count, 1)
        self._pool = get_context("spawn").Pool(count, _begin, (load, run, threads))

    def __call__(self, jobs: Sequence[Any]) -> Iterator[Any]:
        """Rows job by job, in the order in which jobs end."""
        for done in self._pool.imap_unordered(_run, jobs):
            yield from done

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.terminate()


def _begin(load: Callable[[], Any], run: Run, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    Thread(target=_end_with_parent, daemon=True).start()
    _here.update(load=load, run=run, threads=threads)


def _end_with_parent() -> None:
    """A parent that is killed sends no signal, and its rows are of no use any more."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@cache
def _loaded() -> Any:
    """Loaded by the first job, which hands its error on; an initializer's would be lost."""
    torch.set_num_threads(_here["threads"])
    loaded = _here["load"]()
    torch.set_num_threads(_here["threads"])  # whatever ``load`` set
    return loaded


def _run(job: Any) -> list[Any]:
    return list(_here["run"](_loaded(), job))
