"""Processes that share a benchmark's rows out: for a small model, two on a thread each do half as
much again as one on two threads."""

import signal
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from multiprocessing import get_context
from types import TracebackType
from typing import Any

import torch

from sparing.api import Engine
from sparing.evaluate.bench_memory_rows import Done, Job, Plan, run

_here: dict[str, Any] = {}  # of a worker: load, plan, threads


class Workers:
    """A context manager. ``load``: gives an engine, and can be pickled, as ``plan`` can."""

    def __init__(self, count: int, load: Callable[[], Engine], plan: Plan) -> None:
        threads = max(torch.get_num_threads() // count, 1)
        self._pool = get_context("spawn").Pool(count, _begin, (load, plan, threads))

    def __call__(self, jobs: Sequence[Job]) -> Iterator[Done]:
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


def _begin(load: Callable[[], Engine], plan: Plan, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    _here.update(load=load, plan=plan, threads=threads)


@cache
def _engine() -> Engine:
    """Loaded by the first job, whose error reaches whoever asked; an initializer's would not."""
    torch.set_num_threads(_here["threads"])
    engine: Engine = _here["load"]()
    torch.set_num_threads(_here["threads"])  # whatever ``load`` said
    return engine


def _run(job: Job) -> list[Done]:
    return list(run(_engine(), _here["plan"], job))
