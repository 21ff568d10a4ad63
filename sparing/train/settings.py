"""The settings of a training run, stored beside its weights: a resumed run must have the same."""

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from sparing.errors import OptionError
from sparing.files import read_json, write_atomically
from sparing.options import Options

SETTINGS_FILE = "training.json"
EXAMPLES = "examples"  # in that file: a hash of the training examples

ADAM_BETAS = (0.9, 0.95)
DEFAULT_LR = {"muon": 5e-3, "adamw": 2e-3}

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


def fastest(precision: str) -> str:
    """Resolve ``auto``: bfloat16, or float32 on a CPU that would emulate it ten times slower."""
    if precision != "auto":
        return precision
    import torch

    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return "bfloat16" if wide or torch.cuda.is_available() else "float32"


Precision = Literal["auto", "float32", "bfloat16"]


class TrainSettings(Options):
    """The settings of stage 1; the defaults are pocket's."""

    base: str = Field(
        default="SCRATCH", description="SCRATCH (pocket's own shape), a directory, or a hub id"
    )
    task: str = Field(
        default="pocket", description="pocket, or a file of worked solutions (GSM8K, ProsQA)"
    )
    seed: int = Field(default=0, ge=0, description="seed of questions, batches and weights")
    share: float = Field(
        default=1.0, gt=0, le=1, description="share of pocket's questions, to try a recipe"
    )
    steps: int = Field(default=4500, ge=1, description="training steps")
    batch_tokens: int = Field(default=6144, ge=1, description="padded tokens a step")
    optimizer: Literal["adamw", "muon"] = Field(default="muon", description="optimizer")
    lr: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="learning rate at the plateau; by default the optimizer's own"
    )
    weight_decay: float = Field(default=0.01, ge=0, description="weight decay")
    warmup: int = Field(default=120, ge=0, description="steps until the rate reaches the plateau")
    decay: Share = Field(
        default=0.3, description="last share of the steps, over which the rate falls to 0"
    )
    clip: float = Field(default=1.0, gt=0, description="largest norm of the gradients")
    precision: Precision = Field(
        default="auto",
        description="precision of matrix products; auto: bfloat16 where it is fast",
    )
    layer_dropout: Share = Field(
        default=0.1, description="LayerSkip's rate in the last layer, the largest"
    )
    exits: tuple[Share, ...] = Field(
        default=(0.25, 0.34, 0.5),
        description="depths of LayerSkip's early exits, as shares of the layers",
    )
    exit_weight: float = Field(
        default=0.1, ge=0, description="weight of each early exit's loss; the last layer's has 1"
    )
    cache_dropout: Share = Field(
        default=0.0, description="share of the rows trained on a cache with evictions"
    )
    lora_rank: int = Field(
        default=0, ge=0, description="rank of LoRA adapters; 0 trains all weights"
    )

    betas: ClassVar[tuple[float, float]] = ADAM_BETAS

    @model_validator(mode="after")
    def _known_precision(self) -> "TrainSettings":
        """Resolve the precision after all checks, because that imports torch.

        So a resumed run has the precision of its start.
        """
        object.__setattr__(self, "precision", fastest(self.precision))
        return self

    @property
    def order(self) -> int | tuple[int, ...]:
        """The seed of the order of batches."""
        return self.seed

    @property
    def plateau(self) -> float:
        """The learning rate between warm-up and decay."""
        return self.lr or DEFAULT_LR[self.optimizer]

    def lr_at(self, step: int) -> float:
        """Warm-up, a plateau, then a linear fall to 0 over the last ``decay`` of the steps."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        fall = min(1.0, (1 - step / self.steps) / self.decay) if self.decay else 1.0
        return self.plateau * min(rise, fall)


def begun(out: Path) -> bool:
    """Whether ``out`` holds a run with a result: a checkpoint, traces, weights.

    Settings alone are left by a run that failed at once. The next run replaces them.
    """
    if not (out / SETTINGS_FILE).exists():
        return False
    files = (path for path in out.rglob("*") if path.is_file())
    return any(path.name != SETTINGS_FILE and not path.name.startswith(".") for path in files)


def check_resumed(out: Path, resume: bool) -> None:
    """Raise OptionError if ``out`` is a file, or holds a run and ``resume`` is False."""
    if out.exists() and not out.is_dir():
        raise OptionError(f"--out must be a directory, got the file {out}; give another")
    if begun(out) and not resume:
        raise OptionError(
            f"--out must be new, {out} holds a training run; pass --resume to go on with it, "
            "or another directory"
        )


def keep_settings(out: Path, content: dict[str, Any], resume: bool, process: Any) -> None:
    """Write a run's settings to ``out``, or check that a resumed run has the same.

    ``process``: accelerate's state; the main process writes
    """
    check_resumed(out, resume)
    process.wait_for_everyone()  # a late process would take this run's settings for another run's
    check_same(out, content)
    if process.is_main_process and not begun(out):
        write_atomically(out / SETTINGS_FILE, json.dumps(content, indent=1) + "\n")
    process.wait_for_everyone()


def check_same(out: Path, wanted: dict[str, Any]) -> None:
    """Raise OptionError with the first setting that differs from the run in ``out``, if any."""
    if found := difference(out, wanted):
        raise OptionError(
            f"a resumed run must keep its settings, {out} {found}; "
            "repeat that setting, or start a new run in another --out"
        )


def difference(out: Path, wanted: dict[str, Any]) -> str | None:
    """In words, the first setting that differs from the run in ``out``."""
    before = read_json(out / SETTINGS_FILE) if begun(out) else wanted
    for name, value in wanted.items():
        if before.get(name) != value:
            return f"was begun with {name} {before.get(name)!r}, got {value!r}"
    return None
