"""What decides a predictor: which traces are sampled, and how it is fitted to them."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from sparing.options import LatentMode, Options
from sparing.tasks.families import POCKET_TASKS

Count = Annotated[int, Field(ge=1)]
Horizon = Annotated[int, Field(ge=0)]
Ratio = Annotated[float, Field(gt=0, lt=1)]
TargetName = Literal["answer", "future-mean", "future-max"]


class TraceSettings(Options):
    """The traces. ``n`` questions of each task; ``accept``: verified keeps traces whose answer is
    right, any keeps all; ``horizons``: as in ``targets.importance``, rising. ``latent``: how a
    model that has learned latent steps thinks them; None: as it was trained to."""

    model: str
    task: str = POCKET_TASKS
    n: Count = 300
    seed: Annotated[int, Field(ge=0)] = 0
    accept: Literal["verified", "any"] = "verified"
    horizons: tuple[Horizon, ...] = (16, 32, 64, 128, 256, 512)
    max_new_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    dtype: str = "float32"
    latent: LatentMode | None = None

    @field_validator("horizons")
    @classmethod
    def _rising(cls, horizons: tuple[int, ...]) -> tuple[int, ...]:
        if not horizons or list(horizons) != sorted(set(horizons)):
            raise ValueError(f"must be one or more numbers that rise, got {list(horizons)}")
        return horizons


class FitSettings(Options):
    """The recipe; by default the paper's, in smaller batches. ``local``, ``selection``: what its
    model shall use where ``Memory`` does not say; None: the paper's.

    ``batch``: traces a step; ``warmup``: share of the steps; ``kendall``: weight of the pairwise
    term beside the squared error, ``temperature`` of its differences.
    """

    target: TargetName = "future-max"
    seed: Annotated[int, Field(ge=0)] = 0
    epochs: Count = 15
    batch: Count = 32
    lr: Annotated[float, Field(gt=0)] = 5e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    clip: Annotated[float, Field(gt=0)] = 1.0
    kendall: Annotated[float, Field(ge=0)] = 0.0
    temperature: Annotated[float, Field(gt=0)] = 0.5
    local: Ratio | None = None
    selection: Ratio | None = None
