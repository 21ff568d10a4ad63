"""`sparing serve`: a model behind OpenAI's HTTP API."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Any

import typer

from sparing.cli.fields import flag, named
from sparing.cli.flags import LoadingFlags, SeedlessFlags
from sparing.cli.run import say_without_effect
from sparing.errors import OptionError

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
PACKAGES = ("fastapi", "prometheus_client", "uvicorn")  # the extra "serve"
FLAGS = {  # of the settings that are called otherwise
    "request_s": "timeout",
    "body_s": "body_timeout",
    "body_bytes": "max_body",
    "prompt_tokens": "max_prompt_tokens",
    "grace_s": "grace",
}
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def byte_count(given: str | int) -> int:
    """``1073741824``, ``1024M`` or ``1G``."""
    text = str(given).strip().upper().removesuffix("B").removesuffix("I")
    unit = UNITS.get(text[-1:], 1)
    try:
        return int(float(text.rstrip("KMGT")) * unit)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"must be bytes (1073741824, 512M, 2G), got {given!r}") from None


def size(help_: str) -> Any:
    return flag(help_, parser=byte_count, metavar="BYTES")


@dataclass
class LimitFlags:
    """The limits of a server: fields of ServerConfig."""

    kv_bytes: Annotated[Any, size("for the keys and values of all rows")] = "1G"
    rows: Annotated[int, flag("requests decoded at a time, at most")] = 32
    queue: Annotated[int, flag("requests that may wait")] = 256
    timeout: Annotated[float, flag("seconds that a request may take, waiting included")] = 600.0
    max_prompt_tokens: Annotated[
        int | None, flag("of a prompt; by default what the context leaves")
    ] = None
    max_body: Annotated[Any, size("of a request's body")] = "1M"
    body_timeout: Annotated[float, flag("seconds that a body may take to arrive")] = 10.0
    grace: Annotated[float, flag("seconds that open requests have when the server stops")] = 20.0
    keep_runs: Annotated[int, flag("ended runs whose events can be asked for")] = 64
    api_key: Annotated[str | None, flag("ask for this key; better given as SPARING_API_KEY")] = None
    served_model_name: Annotated[
        str | None, flag("name of the model in requests and answers; by default its own")
    ] = None
    cors_origin: Annotated[
        list[str] | None, flag("origin of a page that may use this server; * is any (repeatable)")
    ] = None

    def config(self) -> Any:
        """Raises OptionError, naming flags."""
        from sparing.server.settings import ServerConfig

        with named(FLAGS):
            return ServerConfig(
                kv_bytes=self.kv_bytes,
                rows=self.rows,
                queue=self.queue,
                request_s=self.timeout,
                body_s=self.body_timeout,
                body_bytes=self.max_body,
                prompt_tokens=self.max_prompt_tokens,
                grace_s=self.grace,
                keep_runs=self.keep_runs,
                api_key=self.api_key or os.environ.get("SPARING_API_KEY") or None,
                served_model_name=self.served_model_name,
                cors_origins=tuple(self.cors_origin or ()),
            )


def request_defaults(decoding: SeedlessFlags) -> Any:
    """What a request gets that does not ask for anything else."""
    from sparing.server.settings import RequestDefaults

    return RequestDefaults(
        memory=decoding.memory,
        depth=decoding.depth,
        latent=decoding.latent,
        sampling=decoding.sampling,
        no_think=decoding.no_think,
    )


def serve(
    loading: LoadingFlags,
    decoding: SeedlessFlags,
    limits: LimitFlags,
    host: Annotated[str, flag("address to listen on")] = "127.0.0.1",
    port: Annotated[int, flag("port to listen on; 0: a free one", min=0, max=65535)] = 8000,
    quiet: Annotated[bool, flag("no line for each request, only for failures")] = False,
) -> None:
    """Serve a model over OpenAI's HTTP API.

    It listens at http://HOST:PORT/v1. The flags of `run` are the defaults of requests.
    """
    needs_extra()
    serving, defaults = limits.config(), request_defaults(decoding)
    from sparing.server.listener import bind

    with bind(host, port) as listener:
        decoding.check_for(loading)
        if host not in LOOPBACK and serving.api_key is None:
            typer.echo(
                "note: this address is open to the network; --api-key asks for a key", err=True
            )
        address = f"[{host}]" if ":" in host else host
        where = f"http://{address}:{listener.getsockname()[1]}/v1"
        from sparing.server.run import serve
        from sparing.server.service import Service

        def service() -> Service:
            engine = loading.load()
            say_without_effect(engine, decoding)
            return Service(engine, serving, defaults)

        with log_lines(quiet=quiet):
            serve(
                listener,
                serving,
                service,
                lambda service: typer.echo(f"{service.model} at {where}", err=True),
            )


@contextmanager
def log_lines(*, quiet: bool) -> Iterator[None]:
    """Print log lines on stderr: those of requests too, unless ``quiet``."""
    log, handler = logging.getLogger("sparing"), logging.StreamHandler()
    level = log.level
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def needs_extra() -> None:
    """Raise OptionError where what a server is made of is not installed."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise OptionError(
            f"serve needs packages that are not here ({', '.join(missing)}); "
            "install them with pip install 'sparing[serve]'"
        )
