"""Requests to replicas: what asks for a run goes to the replica that has it."""

import pickle
import random
import re
from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

RUN = re.compile(r"/runs/[a-z]+-([a-z0-9]+)-[0-9a-f]+(?:/|$)")  # its second part: a replica


class RunRouter(RequestRouter):
    """The less loaded of two replicas by chance, as Serve does by itself; a run's own for a run.

    A run whose replica is gone is asked for anywhere, and found nowhere.
    """

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        wanted = replica_of(path_of(pending_request))
        own = [each for each in candidate_replicas if each.replica_id.unique_id == wanted]
        return [own or random.sample(candidate_replicas, min(2, len(candidate_replicas)))]


def replica_of(path: str) -> str | None:
    """The replica of the run that a path asks for, if it asks for one."""
    found = RUN.search(path)
    return found[1] if found else None


def path_of(request: PendingRequest | None) -> str:
    """Of an HTTP request, which Serve's proxy hands on as the pickle of an object with an ASGI
    scope; empty for a call by a handle."""
    given: Any = request.args[0] if request and request.args else None
    if not isinstance(given, bytes):
        return ""
    return str(getattr(pickle.loads(given), "asgi_scope", {}).get("path", ""))
