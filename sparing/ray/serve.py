"""Ray Serve: `serve run sparing.ray.serve:app model=pocket`. A replica is an engine."""

import asyncio
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is imported
import typer
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, RequestRouterConfig

from sparing.cli.app import UsageError
from sparing.cli.fields import as_flag, flag, takes_flags
from sparing.cli.flags import LoadingFlags, SeedlessFlags
from sparing.cli.serve import LimitFlags, request_defaults
from sparing.cli.workers import anywhere
from sparing.errors import OptionError
from sparing.server.app import build_app
from sparing.server.run import SPARE_CONNECTIONS
from sparing.server.service import Service
from sparing.server.settings import RequestDefaults, ServerConfig

HEALTH_S = 10.0  # between two looks at a replica


@dataclass
class ReplicaFlags:
    """How many replicas there are."""

    min_replicas: Annotated[int, flag("replicas that are always there", min=1)] = 1
    max_replicas: Annotated[int | None, flag("replicas at most; by default the least", min=1)] = (
        None
    )
    ongoing_requests: Annotated[
        int, flag("open requests a replica that are aimed at, by more or fewer replicas", min=1)
    ] = 8

    def check(self) -> None:
        """Raise OptionError where the most is below the least."""
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise OptionError(
                f"--max-replicas must be at least --min-replicas = {self.min_replicas}, got "
                f"{self.max_replicas}; raise it"
            )

    @property
    def scaling(self) -> AutoscalingConfig:
        return AutoscalingConfig(
            min_replicas=self.min_replicas,
            max_replicas=self.max_replicas or self.min_replicas,
            target_ongoing_requests=self.ongoing_requests,
        )


@serve.ingress()
class Replica:
    """An engine behind OpenAI's API."""

    def __init__(
        self, loading: LoadingFlags, serving: ServerConfig, defaults: RequestDefaults
    ) -> None:
        self.loading, self.serving, self.defaults = loading, serving, defaults
        self.service: Service | None = None

    async def __serve_build_asgi_app__(self) -> Any:
        """Serve calls it on the event loop that requests come to, before the first of them."""
        with ThreadPoolExecutor(1) as thread:  # torch's threads must not belong to that loop
            self.service = await asyncio.wrap_future(thread.submit(self.load))
        self.service.start()
        return build_app(self.service)

    def load(self) -> Service:
        name = serve.get_replica_context().replica_id.unique_id
        return Service(self.loading.load(), self.serving, self.defaults, name)

    def check_health(self) -> None:
        """Raise where the engine's thread has ended; Serve then starts another replica."""
        if self.service and not self.service.scheduler.alive:
            raise RuntimeError("the engine's thread must be alive, and has ended")

    async def __del__(self) -> None:
        if self.service:
            await self.service.stop()


def app(args: Mapping[str, Any]) -> Application:
    """Build the application. ``args``: the flags of `sparing serve`, host and port excepted, and
    those of ``ReplicaFlags``, by name: ``model=pocket budget=512 max_replicas=4``."""
    arguments = [argument for name, value in args.items() for argument in as_argument(name, value)]
    try:
        return parser(arguments, standalone_mode=False, prog_name="sparing.ray.serve:app")
    except UsageError as error:
        raise OptionError(" ".join(error.format_message().split())) from None


def as_argument(name: str, value: Any) -> Iterator[str]:
    """``no_think=true`` is a flag that is there, and a list one that is there several times."""
    if isinstance(value, list | tuple):
        for each in value:
            yield from as_argument(name, each)
    elif str(value).lower() == "true":
        yield as_flag(name)
    elif str(value).lower() != "false":
        yield f"{as_flag(name)}={value}"


@takes_flags
def deployed(
    loading: LoadingFlags, decoding: SeedlessFlags, limits: LimitFlags, replicas: ReplicaFlags
) -> Application:
    """The replicas; what the model cannot do is refused before any of them starts."""
    decoding.check_for(loading)
    serving, threads = limits.config(), loading.threads or 1
    deployment = serve.deployment(
        Replica,
        name="sparing",
        ray_actor_options={"num_cpus": threads},
        autoscaling_config=replicas.scaling,
        max_ongoing_requests=2 * (serving.rows + serving.queue) + SPARE_CONNECTIONS,
        request_router_config=RequestRouterConfig(
            request_router_class="sparing.ray.router.RunRouter"
        ),
        health_check_period_s=HEALTH_S,
        graceful_shutdown_timeout_s=serving.grace_s,
    )
    there = anywhere(loading).model_copy(update={"threads": threads})
    return deployment.bind(there, serving, request_defaults(decoding))


parser = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
parser.command()(deployed)
