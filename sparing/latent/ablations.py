"""Train all arms from one base with equal gradient steps; a stage of several arms runs once."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from sparing.errors import OptionError, reason
from sparing.files import write_atomically
from sparing.latent.arms import ARMS, curriculum
from sparing.latent.settings import StageSettings
from sparing.latent.train import OnReport, Source, counted, train_stage
from sparing.model.sources import find_model
from sparing.train.loop import EVERY, Pace
from sparing.train.reason import exported
from sparing.train.settings import check_resumed, check_same, keep_settings

PLAN_FILE = "ablations.json"
STAGES = (1, 2, 3)


@dataclass(frozen=True)
class Ablations:
    """The plan of all trainings.

    ``base``: the model before the stages
    ``common``, ``each``: settings, see ``curriculum``
    ``seeds``: an arm uses the first ``Arm.seeds`` of them
    ``out``: a tree of folders; a stage lies within the folder of the stage before it
    """

    base: str
    common: Mapping[str, Any]
    each: Mapping[str, Sequence[Any]]
    seeds: Sequence[int]
    out: Path

    def stages(self, arm: str, seed: int) -> list[StageSettings]:
        return curriculum(ARMS[arm], STAGES, {**self.common, "seed": seed}, self.each)

    def folders(self, arm: str, seed: int) -> list[Path]:
        """The folders of an arm's stages; the last holds its model."""
        folder, found = self.out / f"seed-{seed}", []
        for settings in self.stages(arm, seed):
            folder = folder / label(settings)
            found.append(folder)
        return found

    def seeds_of(self, arm: str) -> Sequence[int]:
        return self.seeds[: ARMS[arm].seeds]

    def todo(
        self, arms: Sequence[str], seeds: Sequence[int]
    ) -> Iterator[tuple[int, StageSettings, Path, Path]]:
        """Seed, settings, base and folder of every stage, each once, bases first."""
        seen: set[Path] = set()
        for seed in seeds:
            for arm in arms:
                if seed not in self.seeds_of(arm):
                    continue
                previous = find_model(self.base)
                pairs = zip(self.stages(arm, seed), self.folders(arm, seed), strict=True)
                for settings, folder in pairs:
                    if folder not in seen:
                        yield seed, settings, previous, folder
                    seen.add(folder)
                    previous = folder

    def content(self) -> dict[str, Any]:
        """All settings of the trainings in one flat dict."""
        found: dict[str, Any] = {"base": self.base, "seeds": list(self.seeds)}
        for arm, known in ARMS.items():
            for settings in [] if known.model else self.stages(arm, self.seeds[0]):
                for name, value in settings.model_dump(mode="json").items():
                    found[f"{arm} {label(settings)} {name}"] = value
        return found

    def plan(self) -> dict[str, Any]:
        """For an evaluation: by arm its switch, its description and its folders by seed."""
        return {
            arm: {
                "mode": known.mode,
                "about": known.about,
                "models": {
                    str(seed): str(self.folders(known.model or arm, seed)[-1].relative_to(self.out))
                    for seed in self.seeds_of(arm)
                },
            }
            for arm, known in ARMS.items()
        }


def train_ablations(
    wanted: Ablations,
    arms: Sequence[str],
    seeds: Sequence[int],
    source: Callable[[int], Source],
    *,
    resume: bool = False,
    on_report: OnReport = lambda report: None,
    pace: Pace = EVERY,
) -> bool:
    """Train the missing stages of ``arms`` for ``seeds``; ``source``: the plain examples of a seed.

    Several processes may train different seeds in the same ``out``. Returns False if ``pace``,
    which counts the steps of these arms and seeds, ends it early.
    """
    check_ablations(wanted, resume)
    process = PartialState(cpu=not torch.cuda.is_available())
    keep_settings(wanted.out, wanted.content(), resume, process)
    if process.is_main_process:
        write_atomically(wanted.out / PLAN_FILE, json.dumps(wanted.plan(), indent=1) + "\n")
    done = 0
    for seed, settings, base, folder in wanted.todo(arms, seeds):
        if pace.stop_at and done >= pace.stop_at:
            return False
        name = str(folder.relative_to(wanted.out))
        if not train_stage(
            base,
            source(seed),
            settings,
            folder,
            resume=True,
            on_report=counted(on_report, done, name),
            pace=replace(pace, stop_at=max(pace.stop_at - done, 0)),
        ):
            return False
        done += settings.steps
    return True


def check_ablations(wanted: Ablations, resume: bool) -> None:
    """Raise OptionError, before anything loads, if ``out`` holds another run."""
    check_resumed(wanted.out, resume)
    check_same(wanted.out, wanted.content())


def label(settings: StageSettings) -> str:
    """A stage's folder name, unique among the stages after the same one: ``3-fused-ignore``."""
    parts = [str(settings.stage), settings.latents]
    if settings.positions == "fixed":
        parts.append("fixed")
    if settings.targets == "ignore" and settings.latents != "none":
        parts.append("ignore")
    if settings.drop:
        parts.append("words")
    return "-".join(parts)


@dataclass(frozen=True)
class Trained:
    """A trained model of an arm. ``mode``: the latent mode of its evaluation."""

    arm: str
    seed: int
    folder: Path
    mode: str


def read_trained(out: Path, arms: Sequence[str] | None) -> list[Trained]:
    """The trained models of ``arms`` in ``out``, arm by arm; None: of all arms.

    Raises OptionError if ``out`` holds no ablations, or no model of one of ``arms``.
    """
    path = out / PLAN_FILE
    try:
        plan = json.loads(path.read_text())
        found = [
            Trained(arm, int(seed), out / folder, of_arm["mode"])
            for arm, of_arm in plan.items()
            for seed, folder in of_arm["models"].items()
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OptionError(
            f"--from must be the --out of `sparing train ablations`, got {out}: {reason(error)}"
        ) from None
    trained = [model for model in found if exported(model.folder)]
    if not trained:
        raise OptionError(f"--from must hold a trained arm, got none in {out}; train some first")
    if arms is None:
        return trained
    for arm in arms:
        if arm not in plan:
            raise OptionError(f"arms must be among {', '.join(plan)}, got {arm!r}")
        if all(model.arm != arm for model in trained):
            raise OptionError(
                f"every arm must have a trained model, got none of {arm} in {out}; continue with "
                "`sparing train ablations --resume`, or pass other --arms"
            )
    return [model for arm in dict.fromkeys(arms) for model in trained if model.arm == arm]
