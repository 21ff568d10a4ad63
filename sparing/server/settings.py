"""The settings of a server: memory, limits, and the defaults of requests."""

import re
from typing import Annotated

from pydantic import Field, field_validator

from sparing.options import Depth, Latent, Memory, Options, Sampling

ORIGIN = re.compile(r"https?://[^/\s]+")


class ServerConfig(Options):
    """The limits of a server.

    ``kv_bytes``: for the keys and values of all rows
    ``rows``: the most live rows
    ``queue``: the most waiting requests
    ``request_s``: longest time of a request
    ``body_s``, ``body_bytes``: longest time and largest size of a request's body
    ``prompt_tokens``: longest prompt; None: only the model's context limits it
    ``grace_s``: time for open requests at a shutdown
    ``keep_runs``: number of ended runs with their events
    ``api_key``: None: no key is required
    ``served_model_name``: None: the model's own
    ``cors_origins``: of pages elsewhere that may use this server; "*": of all
    """

    kv_bytes: Annotated[int, Field(ge=1)] = 1 << 30
    rows: Annotated[int, Field(ge=1, le=1024)] = 32
    queue: Annotated[int, Field(ge=0)] = 256
    request_s: Annotated[float, Field(gt=0)] = 600.0
    body_s: Annotated[float, Field(gt=0)] = 10.0
    body_bytes: Annotated[int, Field(ge=1)] = 1 << 20
    prompt_tokens: Annotated[int, Field(ge=1)] | None = None
    grace_s: Annotated[float, Field(ge=0)] = 20.0
    keep_runs: Annotated[int, Field(ge=0)] = 64
    api_key: Annotated[str, Field(min_length=1)] | None = None
    served_model_name: Annotated[str, Field(min_length=1)] | None = None
    cors_origins: tuple[str, ...] = ()

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"must be *, or scheme and host such as https://chat.example, got {origin!r}"
                )
        return value


class RequestDefaults(Options):
    """The default options of requests."""

    memory: Memory = Memory()
    depth: Depth = Depth()
    latent: Latent = Latent()
    sampling: Sampling = Sampling()
    no_think: bool = False
