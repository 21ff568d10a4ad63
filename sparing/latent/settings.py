"""The settings of a training stage: those of LT-Tuning (arXiv 2602.10229), and our own."""

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sparing.latent.vector_config import Nucleus, Recipe, Share
from sparing.train.settings import Count, TrainSettings

Latents = Literal["none", "hidden", "fused", "pause"]
STAGES = (1, 2, 3)


class StageSettings(TrainSettings):
    """A stage: ``TrainSettings`` with the paper's defaults, and its latents.

    ``token`` to ``match_norms`` are the fields of ``Recipe``. ``drop`` to ``predictor`` belong to
    words-for-latents: latents in place of words, chosen by the base's importance predictor. The
    learning rate warms up over 5 % of the steps and falls as a cosine.
    """

    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    share: float = Field(
        default=0.1, gt=0, le=1, description="share of pocket's number of training questions"
    )
    optimizer: Literal["adamw", "muon"] = Field(default="adamw", description="optimizer")
    lr: Annotated[float, Field(gt=0)] | None = Field(
        default=5e-5, description="highest learning rate"
    )
    layer_dropout: Share = Field(
        default=0.0, description="LayerSkip's rate in the last layer, the largest"
    )
    exit_weight: float = Field(
        default=0.0, ge=0, description="weight of each early exit's loss; the last layer's has 1"
    )
    stage: int = Field(default=1, ge=1, le=3, description="1 words, 2 hidden states, 3 fusion")
    latents: Latents = Field(default="none", description="input at latent positions")
    token: str = Field(default="<thinking>", description="the latent token")
    layer: int = Field(default=-2, description="I: layer of a latent's hidden state; -1: the last")
    alpha: Share = Field(
        default=0.6, description="weight of the hidden state beside the mixed words"
    )
    temperature: float = Field(default=1.0, gt=0, description="temperature T of the mixed words")
    top_p: float = Field(default=0.8, gt=0, le=1, description="nucleus of the mixed words")
    nucleus: Nucleus = Field(
        default="standard", description="reference leaves out the word that crosses top_p"
    )
    adapter: int = Field(
        default=0, ge=0, description="width of the adapter of hidden states; 0: none"
    )
    match_norms: bool = Field(
        default=False, description="rescale hidden states to the norm of embeddings"
    )
    tau: Share = Field(default=0.7, description="latents go before tokens less probable than this")
    most: Count = Field(default=10, description="N: most positions with latents in an example")
    k: Count = Field(default=2, description="most latents in a row")
    nothing: Share = Field(
        default=0.15, description="probability of no latent at a chosen position"
    )
    again: Share = Field(default=0.15, description="probability of a further latent")
    positions: Literal["scored", "fixed"] = Field(
        default="scored", description="positions scored by the model of the stage before, or fixed"
    )
    targets: Literal["ignore", "predict"] = Field(
        default="predict", description="whether the latent token is itself a target"
    )
    drop: Share = Field(default=0.0, description="share of the thinking replaced by latents")
    per_latent: Count = Field(default=1, description="dropped tokens in place of each latent")
    words_weight: float = Field(
        default=0.0, ge=0, description="weight of the loss of a latent's words"
    )
    rounds: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="rounds of the iterated forward; by default it is exact"
    )
    predictor: str | None = Field(
        default=None,
        description="importance predictor, for words-for-latents; by default the base's own",
    )

    @property
    def order(self) -> tuple[int, ...]:
        """The seed of the order of batches, another one in each stage."""
        return (self.seed, self.stage, 1)  # the 1 is part of the shipped models' seed

    @property
    def chances(self) -> list[float]:
        """The probabilities of 0 to k latents before a candidate.

        With n = ``nothing`` and a = ``again``: n for 0, (1 - n) a^(j-1) (1 - a) for 0 < j < k, and
        (1 - n) a^(k-1) for k. For k = 2 these are the paper's; other k are ours.
        """
        each = [self.again**j for j in range(self.k - 1)]
        some = [p * (1 - self.again) for p in each] + [self.again ** (self.k - 1)]
        return [self.nothing, *((1 - self.nothing) * p for p in some)]

    def recipe(self, id_: int) -> Recipe:
        """The recipe of the stage's latents; ``id_``: of the latent token."""
        assert self.latents != "none"
        fields = {name: getattr(self, name) for name in Recipe.model_fields if hasattr(self, name)}
        return Recipe(**fields, id=id_, vector=self.latents)

    def lr_at(self, step: int) -> float:
        rise = 0.05 * self.steps
        if step < rise:
            return self.plateau * (step + 1) / (rise + 1)
        fallen = (step - rise) / (self.steps - rise)
        return self.plateau * 0.5 * (1 + math.cos(math.pi * fallen))
