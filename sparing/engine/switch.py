"""When a row thinks a step without words. The methods live in ``latent/``; the loop knows this."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@dataclass
class Thought:
    """An input vector ``[E]`` in place of a token's embedding, and the words nearest to it."""

    vector: Float[Tensor, " E"]
    top: list[tuple[str, float]] = field(default_factory=list)


@runtime_checkable
class ThoughtSwitch(Protocol):
    """Asked before each token is picked: a Thought makes the next step a latent one."""

    name: str

    def think(
        self, hidden: Float[Tensor, " E"], logits: Float[Tensor, " V"], latents: int
    ) -> Thought | None:
        """``latents``: how many latent steps in a row came right before."""
        ...


class NoSwitch:
    """Every thought is spelled out."""

    name = "off"

    def think(
        self, hidden: Float[Tensor, " E"], logits: Float[Tensor, " V"], latents: int
    ) -> Thought | None:
        return None
