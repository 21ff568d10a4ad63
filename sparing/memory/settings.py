"""Settings of a predictor: the traces that are sampled, and the fit to them."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from sparing.options import LatentMode, Options
from sparing.tasks.families import POCKET_TASKS

Count = Annotated[int, Field(ge=1)]
Horizon = Annotated[int, Field(ge=0)]
Ratio = Annotated[float, Field(gt=0, lt=1)]
TargetName = Literal["answer", "future-mean", "future-max"]


class TraceSettings(Options):
    """Which traces are sampled."""

    model: str = Field(description="model that thinks")
    task: str = Field(default=POCKET_TASKS, description="as of `sparing eval`, several with commas")
    n: Count = Field(default=300, description="questions of each task")
    seed: int = Field(default=0, ge=0, description="of questions, noise and fit")
    accept: Literal["verified", "any"] = Field(
        default="verified",
        description="verified keeps traces that end in the right answer, any keeps all",
    )
    horizons: tuple[Horizon, ...] = Field(
        default=(16, 32, 64, 128, 256, 512),
        description="ages of a token at which its future is learned; rising",
    )
    max_new_tokens: Count | None = Field(default=None, description="longest trace")
    temperature: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="0 is greedy; by default the model's own"
    )
    dtype: str = Field(default="float32", description="what is computed in")
    latent: LatentMode | None = Field(
        default=None, description="thinking without words; by default as the model was trained"
    )

    @field_validator("horizons")
    @classmethod
    def _rising(cls, horizons: tuple[int, ...]) -> tuple[int, ...]:
        if not horizons or list(horizons) != sorted(set(horizons)):
            raise ValueError(f"must be one or more numbers that rise, got {list(horizons)}")
        return horizons


class FitSettings(Options):
    """The recipe; by default the paper's, in smaller batches."""

    target: TargetName = Field(default="future-max", description="what importance is")
    seed: int = Field(default=0, ge=0, description="of weights and batches")
    epochs: Count = Field(default=15, description="passes over all traces")
    batch: Count = Field(default=32, description="traces a step")
    lr: float = Field(default=5e-4, gt=0, description="highest learning rate")
    weight_decay: float = Field(default=0.01, ge=0, description="weight decay")
    betas: tuple[float, float] = Field(default=(0.9, 0.95), description="of AdamW")
    warmup: float = Field(
        default=0.1, ge=0, lt=1, description="share of the steps until the highest rate"
    )
    clip: float = Field(default=1.0, gt=0, description="largest norm of the gradients")
    kendall: float = Field(
        default=0.0, ge=0, description="weight of the pairwise term beside the squared error"
    )
    temperature: float = Field(
        default=0.5, gt=0, description="temperature of the pairwise term's differences"
    )
    local: Ratio | None = Field(
        default=None, description="default of --local for the model with this predictor"
    )
    selection: Ratio | None = Field(
        default=None, description="default of --selection for the model with this predictor"
    )
