"""When a row thinks a step without words. The methods live in ``latent/``; the loop knows this."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@dataclass
class Thought:
    """An input vector ``[E]`` in place of a token's embedding, and the likeliest words in it."""

    vector: Float[Tensor, " E"]
    top: list[tuple[str, float]] = field(default_factory=list)


@runtime_checkable
class Thinks(Protocol):
    """Makes a thought of the hidden state at a ``layer`` and the logits of one position."""

    @property
    def layer(self) -> int: ...

    def __call__(self, hidden: Float[Tensor, " E"], logits: Float[Tensor, " V"]) -> Thought: ...


class Latents(NamedTuple):
    """How many latent steps a row has taken right before, and in all."""

    in_a_row: int
    total: int


@runtime_checkable
class ThoughtSwitch(Protocol):
    """Asked once a token is picked: a Thought takes its place and makes the next step a latent one.

    ``layer``: whose hidden states it is shown, numbered as in ``Output``; None: the last.
    ``token``: the one that stands for a latent step, if any: it is never said. Where it may not
    even be picked (``silent``), its logit is minus infinity everywhere.
    """

    name: str
    layer: int | None
    token: int | None
    silent: bool

    def think(
        self,
        hidden: Float[Tensor, " E"],
        logits: Float[Tensor, " V"],
        token: int,
        confidence: float,
        latents: Latents,
    ) -> Thought | None:
        """``token``: what has been picked from these logits; ``confidence``: the likeliest one's
        probability."""
        ...


def layer_of(switches: Iterable[ThoughtSwitch]) -> int | None:
    """The layer that those of a pass are shown; rows that never think do not care."""
    return next((s.layer for s in switches if s.layer is not None), None)


class NoSwitch:
    """Every thought is spelled out. ``token``: of a model that has learned latent steps."""

    name, silent = "off", True
    layer: int | None = None

    def __init__(self, token: int | None = None) -> None:
        self.token = token

    def think(
        self,
        hidden: Float[Tensor, " E"],
        logits: Float[Tensor, " V"],
        token: int,
        confidence: float,
        latents: Latents,
    ) -> Thought | None:
        return None
