"""The rows of `sparing bench latent`: every problem by every model of every arm."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from sparing.api import Engine, load
from sparing.evaluate.batch_generate import FinishedRow, Settings
from sparing.evaluate.experiment import BatchExperiment, Row, check_split, draw
from sparing.latent.ablations import Trained
from sparing.model.fingerprint import files_fingerprint
from sparing.options import Depth, Latent, Sampling
from sparing.tasks.problem import Problem, Task


@dataclass(frozen=True)
class LatentExperiment(BatchExperiment[Trained]):
    """``n`` problems of each task, by every one of ``models``. Raises OptionError."""

    models: Sequence[Trained]
    tasks: Sequence[Task]
    n: int
    seed: int
    split: str = "test"
    max_new_tokens: int = 1400
    batch_size: int = 64
    dtype: str = "float32"

    keys = ("arm", "seed")
    reported = (
        "id",
        "correct",
        "text_tokens",
        "latent_tokens",
        "steps",
        "seconds",
        "finish_reason",
    )

    def __post_init__(self) -> None:
        check_split(self.split)

    @cached_property
    def problems(self) -> list[Problem]:
        return draw(self.tasks, self.n, self.seed, self.split)

    @property
    def arms(self) -> Sequence[Trained]:
        return self.models

    def key(self, arm: Trained) -> tuple[str, int]:
        return arm.arm, arm.seed

    def label(self, arm: Trained) -> str:
        return f"{arm.arm}/{arm.seed}"

    def settings(self, arm: Trained, before: Row | None = None) -> Settings:
        """Greedy, without drafts, everything kept; latents as the arm has them."""
        sampling = Sampling(temperature=0, max_new_tokens=self.max_new_tokens)
        latent = Latent(mode=arm.mode)  # type: ignore[arg-type]
        return Settings(
            depth=Depth(draft="off"), latent=latent, sampling=sampling, batch_size=self.batch_size
        )

    def engine(self, loaded: None, arm: Trained) -> Engine:
        return load_arm(arm.folder, self.dtype)

    def measured(self, problem: Problem, finished: FinishedRow, before: Row | None) -> Row:
        """``steps``: passes of the model behind the prompt's."""
        stats = finished.result.stats
        return {
            "text_tokens": stats.new_tokens,
            "latent_tokens": stats.latent_tokens,
            "steps": stats.new_tokens + stats.latent_tokens,
            "seconds": round(finished.seconds, 4),
            "finish_reason": finished.result.finish_reason,
        }

    def to_dict(self) -> dict[str, Any]:
        """Every field as JSON, tasks and models by name."""
        names = ("n", "seed", "split", "max_new_tokens", "batch_size", "dtype")
        return {
            "tasks": [task.name for task in self.tasks],
            "models": [f"{m.arm}, seed {m.seed}, {m.mode}" for m in self.models],
            **{name: getattr(self, name) for name in names},
        }

    @property
    def model_files(self) -> dict[str, Any]:
        """What the models are, for ``fingerprint``."""
        return {"model_files": [files_fingerprint(model.folder) for model in self.models]}


@lru_cache(maxsize=1)
def load_arm(folder: Path, dtype: str) -> Engine:
    """A model; the last one stays loaded."""
    return load(folder, dtype=dtype)
