"""The switches of latent steps: by the model's own latent token, or by low confidence."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sparing.engine.latent_switch import Latents, NoSwitch, Thought, ThoughtSwitch
from sparing.errors import OptionError
from sparing.latent.config import LatentConfig
from sparing.latent.files import without_latents
from sparing.latent.fusion import Embeddings, LatentVector, Rows, mixture
from sparing.model.inputs import Forward
from sparing.options import Latent

SHOWN = 3  # words of a Thought


@dataclass(frozen=True)
class Thinker:
    """Makes a Thought: ``vector`` over ``embeddings``, and its words by ``tokenizer``."""

    vector: LatentVector
    embeddings: Embeddings
    tokenizer: Any

    @property
    def layer(self) -> int:
        return self.vector.recipe.layer

    @torch.inference_mode()
    def __call__(self, hidden: Float[Tensor, " E"], logits: Float[Tensor, " V"]) -> Thought:
        z = self.vector(hidden[None], logits[None], self.embeddings)[0]
        q = mixture(logits[None], self.vector.recipe)[0]
        best = q.topk(min(SHOWN, len(q)))
        top = [
            (self.tokenizer.decode([token]), p)
            for token, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            if p > 0
        ]
        return Thought(z, top)


class LearnedSwitch:
    """A latent step where the model picks its latent token, greedily or drawn.

    At most ``in_a_row`` latent steps in a row, and ``most`` in total.
    """

    name, silent = "learned", False

    def __init__(self, thinker: Thinker, in_a_row: int, most: int) -> None:
        self.thinker, self.in_a_row, self.most = thinker, in_a_row, most
        self.layer: int | None = thinker.layer
        self.token: int | None = thinker.vector.recipe.id

    def think(
        self,
        hidden: Float[Tensor, " E"],
        logits: Float[Tensor, " V"],
        token: int,
        confidence: float,
        latents: Latents,
    ) -> Thought | None:
        if not self.wants(token, confidence):
            return None
        if latents.in_a_row >= self.in_a_row or latents.total >= self.most:
            return None
        return self.thinker(hidden, logits)

    def wants(self, token: int, confidence: float) -> bool:
        return token == self.token


class Confidence(LearnedSwitch):
    """A latent step where the likeliest word has a probability below ``tau``.

    The latent token itself has probability 0 and is never picked.
    """

    name, silent = "confidence", True

    def __init__(self, thinker: Thinker, in_a_row: int, most: int, tau: float) -> None:
        super().__init__(thinker, in_a_row, most)
        self.tau = tau

    def wants(self, token: int, confidence: float) -> bool:
        return confidence < self.tau


def find_switch(
    wanted: Latent,
    known: tuple[LatentConfig, LatentVector] | None,
    decoder: Forward,
    tokenizer: Any,
) -> ThoughtSwitch:
    """The switch for the options; raises OptionError if the model does not support it."""
    if known is None:
        if wanted.mode != "off":
            raise without_latents(wanted.mode)
        return NoSwitch()
    config, vector = known
    if wanted.mode == "off":
        return NoSwitch(config.id)
    if wanted.mode == "learned" and config.targets == "ignore":
        raise OptionError(
            "latent learned needs a model trained to predict its latent token, got one "
            "trained to ignore it; pass latent confidence"
        )
    options = config.options(wanted)
    assert options.in_a_row is not None
    assert options.most is not None
    assert options.tau is not None
    thinker = Thinker(vector, embeddings_of(decoder), tokenizer)
    if wanted.mode == "learned":
        return LearnedSwitch(thinker, options.in_a_row, options.most)
    return Confidence(thinker, options.in_a_row, options.most, options.tau)


def embeddings_of(decoder: Forward) -> Embeddings:
    """The input embeddings of a decoder."""
    return Rows(decoder.embedding, decoder.shape.vocabulary)
