"""What a server is given: how much room, and how much patience."""

from typing import Annotated

from pydantic import Field

from sparing.model.chat import ChatFormat
from sparing.options import Depth, Latent, Memory, Options, Sampling


class ServerConfig(Options):
    """``kv_bytes``: for the keys and values of all rows, ``rows`` of them at most; ``queue``: how
    many requests may wait. A request may take ``request_s`` in all, its body ``body_s`` to arrive
    and ``body_bytes``, its prompt ``prompt_tokens`` (None: what the model's context leaves).
    ``grace_s``: for open requests when the server stops; ``keep_runs``: how many that have ended
    can still be asked for their events. Without an ``api_key`` none is asked for.
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


class RequestDefaults(Options):
    """The options of requests that do not say otherwise."""

    memory: Memory = Memory()
    depth: Depth = Depth()
    latent: Latent = Latent()
    sampling: Sampling = Sampling()
    no_think: bool = False


def thinking_can_be_left_out(chat: ChatFormat) -> bool:
    """Whether the chat template looks at ``enable_thinking`` at all."""
    return "enable_thinking" in str(chat.tokenizer.chat_template or "")
