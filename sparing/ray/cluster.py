"""A connection to a Ray cluster, and how many workers it has room for."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is imported
import ray

from sparing.errors import OptionError, reason
from sparing.ray.address import AUTO, LOCAL

STORE_BYTES = 128 << 20  # of shared memory, for a cluster of our own: rows are small


@contextmanager
def connected(address: str, cpus: int | None = None) -> Iterator[None]:
    """Within it Ray's functions work; raises OptionError.

    ``cpus``: of a local cluster, by default those of this machine
    """
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    try:
        if address == LOCAL:
            ray.init(
                "local",
                num_cpus=cpus,
                object_store_memory=STORE_BYTES,
                include_dashboard=False,
                **quiet,
            )
        else:
            ray.init(address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        ray.shutdown()
        got = reason(error).partition(". ")[0].rstrip(".")
        advice = "check the address, set RAY_AUTH_MODE=token where the cluster asks for its token"
        if address == AUTO:
            advice = "start one with `ray start --head`"
        raise OptionError(
            f"--ray must be a cluster that this process can join, got: {got}; {advice}, "
            f"or pass --ray {LOCAL}"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def room(cpus: int) -> int:
    """How many workers of so many CPUs fit on the nodes."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(int(resources.get("CPU", 0)) // cpus for resources in nodes)


def count_workers(wanted: int | None, cpus: int) -> int:
    """Those that are wanted, by default as many as there is room for; raises OptionError."""
    most = room(cpus)
    if not 1 <= (wanted or most) <= most:
        threads = f"{cpus} thread{'s' if cpus > 1 else ''}"
        raise OptionError(
            f"--workers must fit on the cluster's CPUs, {most} with {threads} each, got "
            f"{wanted or 'none'}; pass fewer --workers or --threads, or add nodes"
        )
    return wanted or most
