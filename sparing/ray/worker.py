"""What runs in each process of the cluster."""

from collections.abc import Callable, Iterator
from typing import Any

import ray
import torch

from sparing import __version__
from sparing.errors import ModelError, message
from sparing.evaluate.experiment import Done, Job
from sparing.evaluate.process_pool import Run


class Worker:
    """Something loaded, and jobs for it.

    ``version``: of the driver's Sparing; another one here would give other rows
    """

    def __init__(self, load: Callable[[], Any], run: Run, threads: int, version: str) -> None:
        self._load, self._run, self._threads = load, run, threads
        self._version = version
        self._loaded: Any = None

    def ready(self) -> str:
        """Load; gives the node's address. Raises ModelError that names it."""
        node = ray.util.get_node_ip_address()
        here = f"the worker on {node}"
        if self._version != __version__:
            raise ModelError(
                f"{here} must have the same version of Sparing, {self._version}, got {__version__};"
                " install the same on every node"
            )
        torch.set_num_threads(self._threads)
        try:
            self._loaded = self._load()
        except Exception as error:
            raise ModelError(f"{here} could not load: {message(error)}") from None
        torch.set_num_threads(self._threads)  # whatever ``load`` set
        return node

    @ray.method(num_returns="streaming")
    def do(self, job: Job) -> Iterator[Done]:
        """The job's rows as they are done."""
        yield from self._run(self._loaded, job)
