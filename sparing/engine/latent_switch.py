"""The protocol between the decode loop and latent steps; the methods are in ``latent/``."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@dataclass
class Thought:
    """An input vector ``[E]`` in place of a token's embedding, and its likeliest words."""

    vector: Float[Tensor, " E"]
    top: list[tuple[str, float]] = field(default_factory=list)


@runtime_checkable
class Thinks(Protocol):
    """Makes a Thought from the hidden state at a ``layer`` and the logits of one position."""

    @property
    def layer(self) -> int: ...

    def __call__(self, hidden: Float[Tensor, " E"], logits: Float[Tensor, " V"]) -> Thought: ...


class Latents(NamedTuple):
    """The number of a row's latent steps: in a row until now, and in total."""

    in_a_row: int
    total: int


@runtime_checkable
class ThoughtSwitch(Protocol):
    """Decides on latent steps, after each picked token: a Thought replaces the token.

    ``layer``: the layer of its hidden states, numbered as in ``Output``; None: the last
    ``token``: the id of the latent token, if any; it is never in the output
    ``silent``: whether the latent token's logit is always minus infinity, so that it is never
        picked
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
        """A Thought for a latent step, or None to keep the token.

        ``token``: picked from these logits
        ``confidence``: the probability of the likeliest token
        """
        ...


def layer_of(switches: Iterable[ThoughtSwitch]) -> int | None:
    """The layer of the hidden states for the switches of a pass; None if no switch needs one."""
    return next((s.layer for s in switches if s.layer is not None), None)


class NoSwitch:
    """No latent steps. ``token``: the latent token of a model with learned latent steps."""

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
