"""Who does the jobs of an experiment: this process, others beside it, or a Ray cluster."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from sparing.cli.fields import flag


@dataclass
class RayFlag:
    """Which cluster; none: this process works alone, or with workers of its own."""

    ray: Annotated[
        str | None,
        flag("work on a Ray cluster: HOST:PORT, auto (this machine's), or local (one of its own)"),
    ] = None

    def check(self) -> None:
        """Refuse a cluster that is not there."""
        if self.ray is not None:
            from sparing.ray.address import check_ray

            check_ray(self.ray)


@dataclass
class WorkersFlag(RayFlag):
    """How many share the problems, and where."""

    workers: Annotated[
        int | None,
        flag(
            "processes for the problems, each with its part of the threads; by default 1, with "
            "--ray as many as its CPUs allow, each with --threads (1)",
            min=1,
        ),
    ] = None

    def runner(self, loading: Any, run: Any) -> Any:
        """A context manager that gives a runner; None where this process does all by itself."""
        if self.ray is None:
            return several(self.workers or 1, loading.load, run)
        return on_ray(self.ray, loading, anywhere(loading).load, run, self.workers)


def several(workers: int, load: Callable[[], Any], run: Any) -> Any:
    """The processes that take an experiment's jobs; with one, this does them itself."""
    from sparing.evaluate.process_pool import Workers

    return Workers(workers, load, run) if workers > 1 else nullcontext()


@contextmanager
def on_ray(
    address: str, loading: Any, load: Any, run: Any, workers: int | None = None
) -> Iterator[Any]:
    """Workers of a cluster. ``loading``: has their threads.

    Ray tells of lost nodes on stdout, in pages; we have a line of our own for them.
    """
    from sparing.ray.runner import RayWorkers

    with (
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),
        RayWorkers(address, load, run, workers, loading.threads or 1) as runner,
    ):
        yield runner


def anywhere(loading: Any) -> Any:
    """The same model by absolute paths: a worker has a working directory of its own."""
    given = {name: getattr(loading, name, None) for name in ("model", "predictor")}
    paths = {name: str(Path(path).expanduser()) for name, path in given.items() if path}
    here = {name: os.path.abspath(path) for name, path in paths.items() if Path(path).exists()}
    return loading.model_copy(update=here)
