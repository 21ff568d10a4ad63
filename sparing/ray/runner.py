"""Workers of a Ray cluster that share jobs; what a lost worker leaves is done by another."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from sparing import __version__
from sparing.errors import ModelError, OptionError, SparingError
from sparing.evaluate.experiment import Done, Job
from sparing.evaluate.process_pool import Run
from sparing.ray.address import LOCAL
from sparing.ray.cluster import connected, count_workers, ray
from sparing.ray.worker import Worker

TRIES = 3  # of a job, and of a worker's start
LOST = (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError)

log = logging.getLogger("sparing")


@dataclass
class Attempt:
    """A job, the places of its rows that are here, and the workers that were lost with it."""

    job: Job
    lost: int = 0
    done: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Placed:
    """A worker that has loaded, and the address of its node."""

    actor: Any
    node: str


class RayWorkers:
    """A context manager and a runner: processes of a cluster, each with what ``load`` gives.

    ``load``, ``run``: as in ``process_pool.Workers``
    ``workers``: how many; by default as many as there is room for
    ``cpus``: of each, and the threads of its torch

    Raises OptionError where the cluster cannot be joined or has no room for them.
    """

    def __init__(
        self,
        address: str,
        load: Callable[[], Any],
        run: Run,
        workers: int | None = None,
        cpus: int = 1,
    ) -> None:
        self._new = ray.remote(Worker).options(num_cpus=cpus)
        self._given = load, run, cpus, __version__
        self._idle: list[Placed] = []
        self._starting: dict[Any, tuple[Any, int]] = {}  # an actor, and the number of its try
        with ExitStack() as opened:
            own = workers * cpus if workers and address == LOCAL else None
            opened.enter_context(connected(address, own))
            self.workers = count_workers(workers, cpus)
            for _ in range(self.workers):
                self._start()
            self._opened = opened.pop_all()

    def __enter__(self) -> "RayWorkers":
        return self

    def __exit__(self, *_: object) -> None:
        """Workers end with the connection."""
        self._opened.close()

    def __call__(self, jobs: Sequence[Job]) -> Iterator[Done]:
        """Rows as they come, of all jobs in turns."""
        waiting = deque(map(Attempt, jobs))
        busy: dict[Any, tuple[Placed, Attempt]] = {}
        while waiting or busy:
            while waiting and self._idle:
                worker, attempt = self._idle.pop(), waiting.popleft()
                busy[worker.actor.do.remote(attempt.job)] = worker, attempt
            [ready], _ = ray.wait([*busy, *self._starting])
            if ready in self._starting:
                self._started(ready)
                continue
            worker, attempt = busy[ready]
            try:
                done = received(next(ready))
            except StopIteration:
                del busy[ready]
                self._idle.append(worker)
            except LOST:
                del busy[ready]
                self._start()
                waiting.extendleft(left_of(attempt, worker.node))
            else:
                attempt.done.add(done[1])
                yield done

    def _start(self, number: int = 1) -> None:
        """Let a new worker load, on a node of Ray's choice."""
        actor = self._new.remote(*self._given)
        self._starting[actor.ready.remote()] = actor, number

    def _started(self, ready: Any) -> None:
        actor, number = self._starting.pop(ready)
        try:
            self._idle.append(Placed(actor, received(ready)))
        except LOST:
            if number == TRIES:
                raise ModelError(
                    f"a worker must live until its model is loaded, got {TRIES} in turn that did "
                    "not; see the memory of the nodes, and Ray's logs there"
                ) from None
            self._start(number + 1)


def received(reference: Any) -> Any:
    """An object's value; our own errors are raised as they were in the worker."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, SparingError):
            raise error.cause from None
        raise


def left_of(attempt: Attempt, node: str) -> list[Attempt]:
    """The rest of a job whose worker was lost; raises OptionError where it has lost enough."""
    job, lost = attempt.job.without(attempt.done), attempt.lost + 1
    if not job.places:
        return []
    if lost == TRIES:
        raise OptionError(
            f"a job must leave its worker alive, got {TRIES} workers lost with the same one, the "
            f"last on {node}; see the memory of that node and Ray's logs there, or pass a smaller "
            "--batch-size"
        )
    log.warning("the worker on %s was lost; another does the rest of its job", node)
    return [Attempt(job, lost)]
