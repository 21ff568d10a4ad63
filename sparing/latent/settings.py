"""The settings of a training stage (spec/latent.md): the paper's, and our own additions."""

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sparing.latent.vector_config import Nucleus, Recipe, Share
from sparing.train.settings import Count, TrainSettings

Latents = Literal["none", "hidden", "fused", "pause"]
STAGES = (1, 2, 3)


class StageSettings(TrainSettings):
    """A stage: ``TrainSettings``, with the paper's defaults where it has some, and its latents.

    ``stage`` 1, 2 or 3. ``latents``: what stands at latent positions, none for stage 1. The
    recipe's fields are those of ``Recipe``. ``tau``: gold probability below which a position is a
    candidate; ``most`` (N) of them are taken; ``k``: latents before each at most; ``nothing``:
    probability of none, ``again``: of a further one. ``positions``: scored by the model of the
    stage before, or fixed. ``targets``: whether the latent token is itself predicted. ``drop``:
    share of the thinking that latents stand in for, see ``words``, chosen by the ``predictor`` of
    the base; one for ``per_latent`` tokens, the words of which its mixture is taught by
    ``words_weight``; in ``rounds`` of ``iterated_forward`` where they are given and words are
    dropped, else exactly. The rate warms up over 5 % of the steps and falls as a cosine.
    """

    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    optimizer: Literal["adamw", "muon"] = "adamw"
    lr: Annotated[float, Field(gt=0)] | None = 5e-5
    layer_dropout: Share = 0.0
    exit_weight: Annotated[float, Field(ge=0)] = 0.0
    stage: Annotated[int, Field(ge=1, le=3)] = 1
    latents: Latents = "none"
    token: str = "<thinking>"
    layer: int = -2
    alpha: Share = 0.6
    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.8
    nucleus: Nucleus = "standard"
    adapter: Annotated[int, Field(ge=0)] = 0
    match_norms: bool = False
    tau: Share = 0.7
    most: Count = 10
    k: Count = 2
    nothing: Share = 0.15
    again: Share = 0.15
    positions: Literal["scored", "fixed"] = "scored"
    targets: Literal["ignore", "predict"] = "predict"
    drop: Share = 0.0
    per_latent: Count = 1
    words_weight: Annotated[float, Field(ge=0)] = 0.0
    rounds: Annotated[int, Field(ge=0)] | None = None
    predictor: str | None = None

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
