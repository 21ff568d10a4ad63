"""`sparing train latent`: a model learns to think steps without words, in three stages."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from sparing.cli.fields import Flags, flag, numbers
from sparing.cli.flags import quiet_transformers
from sparing.cli.train import PaceFlags, TrainingBar, finish_pocket, worked_solutions
from sparing.errors import OptionError
from sparing.latent.settings import StageSettings
from sparing.model.sources import find_here

HELD_OUT = 10  # questions of each family and level: latents make each of them many passes
FIELDS = StageSettings.model_fields
PER_STAGE = ("steps", "lr", "batch_tokens")  # flags with a value for all stages, or one for each
OF_THE_ARM = ("stage", "latents", "positions", "drop", "per_latent", "words_weight", "rounds")
OF_THE_STAGE = ("most", "nothing", "again", "warmup", "decay")  # its own, or none
StageFlags = Annotated[  # what decides the weights in every arm
    dict[str, Any],
    Flags(
        of=StageSettings,
        without=["base", "seed", *PER_STAGE, *OF_THE_ARM, *OF_THE_STAGE],
        renamed={"temperature": "mix_temperature", "top_p": "mix_top_p"},
    ),
]


@dataclass
class LengthFlags:
    """How long each stage is, and how fast: one value for all three, or one each with commas."""

    steps: Annotated[str, flag("training steps of stages 1, 2 and 3")] = "200,200,400"
    lr: Annotated[str, flag(FIELDS["lr"].description or "")] = str(FIELDS["lr"].default)
    batch_tokens: Annotated[str, flag(FIELDS["batch_tokens"].description or "")] = str(
        FIELDS["batch_tokens"].default
    )

    def each(self) -> dict[str, list[Any]]:
        """By setting its values for stages 1, 2 and 3; raises OptionError."""
        found = {}
        for name in PER_STAGE:
            said, kind = getattr(self, name), float if name == "lr" else int
            values: list[Any] = numbers(name.replace("_", "-"), said, kind)
            if len(values) not in (1, 3):
                raise OptionError(
                    f"--{name.replace('_', '-')} must have one value, or one for each of the three "
                    f"stages, got {said}"
                )
            found[name] = values * (3 // len(values))
        return found


def latent(
    base: Annotated[str, flag("what it begins with: an embedded model, a directory, a hub id")],
    staging: StageFlags,
    lengths: LengthFlags,
    pacing: PaceFlags,
    out: Annotated[Path, flag("directory for weights, checkpoints and settings")],
    stages: Annotated[str, flag("which, with commas: 1 words, 2 hidden states, 3 fusion")] = (
        "1,2,3"
    ),
    arm: Annotated[str, flag("what is trained; by default the method itself")] = "latent",
    seed: Annotated[int, flag("of questions, positions, batches and weights", min=0)] = 0,
) -> None:
    """Learn to think steps without words, in three stages.

    It may be killed at any moment and resumed.
    """
    from sparing.latent.arms import curriculum, find_arm

    named = numbers("stages", stages, int)
    find_here(base)
    common = staging | {"base": base, "seed": seed}
    wanted = curriculum(find_arm(arm), named, common, lengths.each())
    import torch

    from sparing.latent.train import check_base, check_stages, train_latent

    if pacing.threads:
        torch.set_num_threads(pacing.threads)
    quiet_transformers()
    check_stages(wanted, out, pacing.resume)
    check_base(base, wanted)
    questions = Questions(staging["task"], seed, staging["share"])
    with TrainingBar(sum(settings.steps for settings in wanted), out) as shown:
        done = train_latent(
            base,
            questions,
            wanted,
            out,
            resume=pacing.resume,
            on_report=shown.report,
            pace=pacing.pace(),
        )
    if done and questions.asked is not None:
        finish_pocket(out, questions.asked, base)
    shown.end(done, pacing.stop_at)


class Questions:
    """The plain examples of a task for a tokenizer, made once.

    Pocket's are drawn from what it was not trained on and no test asks: ``asked``, once made.
    """

    def __init__(self, task: str, seed: int, share: float) -> None:
        self.task, self.seed, self.share = task, seed, share
        self.solutions = worked_solutions(task)
        self.asked: Any = None
        self._made: dict[str, Any] = {}

    def __call__(self, tokenizer: Any) -> Any:
        name = repr(sorted(tokenizer.get_vocab().items()))
        if name not in self._made:
            self._made = {name: self._make(tokenizer)}
        return self._made[name]

    def _make(self, tokenizer: Any) -> Any:
        if self.solutions is None:
            from sparing.pocket.recipe import pocket_corpus

            corpus, self.asked = pocket_corpus(tokenizer, self.seed, self.share, "traces", HELD_OUT)
            return corpus
        from sparing.train.solutions import solutions_corpus

        return solutions_corpus(tokenizer, self.solutions, Path(self.task).stem, self.seed)
