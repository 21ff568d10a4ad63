"""The arms of the ablations: the curriculum, and its variants with other latents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from sparing.errors import OptionError
from sparing.latent.settings import STAGES, StageSettings
from sparing.options import LatentMode

Changes = Mapping[str, Any]
NOTHING: Changes = MappingProxyType({})
# The paper's defaults of single stages.
OF_STAGE: dict[int, Changes] = {
    1: NOTHING,
    2: {"most": 10, "nothing": 0.15, "again": 0.15},
    3: {"most": 16, "nothing": 0.05, "again": 0.2},
}


@dataclass(frozen=True)
class Arm:
    """A variant of the curriculum.

    ``second``, ``third``: changed settings of stages 2 and 3
    ``mode``: the latent mode of its evaluation
    ``seeds``: number of seeds
    ``model``: another arm, to evaluate its model instead of a training
    """

    about: str
    second: Changes = field(default_factory=lambda: {"latents": "hidden"})
    third: Changes = field(default_factory=lambda: {"latents": "fused"})
    mode: LatentMode = "learned"
    seeds: int = 1
    model: str | None = None


FIXED: Changes = {"latents": "fused", "positions": "fixed", **OF_STAGE[3]}
ARMS = {
    "cot": Arm(
        "explicit chain of thought for the same number of steps",
        {"latents": "none"},
        {"latents": "none"},
        mode="off",
        seeds=3,
    ),
    "latent": Arm("all three stages", seeds=3),
    "no-stage-2": Arm("stage 3 from the start, at fixed positions", FIXED, FIXED),
    "no-stage-3": Arm("raw hidden states, z = h, to the end", third={"latents": "hidden"}, seeds=3),
    "pause": Arm(
        "a learned embedding in place of z", {"latents": "pause"}, {"latents": "pause"}, seeds=3
    ),
    "banned": Arm("latent's model, its latents banned", mode="off", model="latent", seeds=3),
    "ignore": Arm(
        "latents that are no targets, switched by confidence",
        {"latents": "hidden", "targets": "ignore"},
        {"latents": "fused", "targets": "ignore"},
        mode="confidence",
    ),
    "words-for-latents": Arm(
        "latents in place of the words with the least later attention",
        third={"latents": "fused", "alpha": 0.0, "top_p": 0.5, "most": 128, "k": 24, "drop": 0.3,
               "words_weight": 1.0, "rounds": 0},
    ),
}  # fmt: skip


def find_arm(name: str) -> Arm:
    """The arm called ``name``; raises OptionError for an unknown arm or one without a training."""
    trained = [known for known, arm in ARMS.items() if arm.model is None]
    if name not in trained:
        raise OptionError(f"arm must be one of {', '.join(trained)}, got {name!r}")
    return ARMS[name]


def curriculum(
    arm: Arm,
    stages: Sequence[int],
    common: Changes,
    each: Mapping[str, Sequence[Any]] = MappingProxyType({}),
) -> list[StageSettings]:
    """The settings of an arm's stages. Raises OptionError.

    ``common``: settings of all stages; the arm's own have precedence
    ``each``: settings with one value for each of the three stages
    """
    if (
        not stages
        or any(stage not in STAGES for stage in stages)
        or sorted(set(stages)) != [*stages]
    ):
        raise OptionError(
            f"stages must be among {', '.join(map(str, STAGES))}, in order, each once, got "
            f"{','.join(map(str, stages)) or 'none'}"
        )
    found = []
    for stage in stages:
        own = {1: NOTHING, 2: arm.second, 3: arm.third}[stage]
        given = {name: values[stage - 1] for name, values in each.items()}
        settings = {**OF_STAGE[stage], **common, **given, **own, "stage": stage}
        found.append(StageSettings(**settings))
    return found
