"""`sparing train latent`: a model learns to think steps without words, in three stages."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from sparing.cli.flags import flag, numbers, quiet_transformers
from sparing.cli.train import POCKET, TrainingBar, finish_pocket, worked_solutions
from sparing.errors import OptionError

HELD_OUT = 10  # questions of each family and level: latents make each of them many passes
PER_STAGE = ("steps", "lr", "batch_tokens")  # flags with a value for all stages, or one for each


@dataclass
class StageFlags:
    """What decides the weights in every arm: fields of StageSettings."""

    task: Annotated[str, flag("pocket, or a file of worked solutions (GSM8K, ProsQA)")] = POCKET
    share: Annotated[float, flag("of pocket's number of questions")] = 0.1
    optimizer: Annotated[str, flag("adamw or muon")] = "adamw"
    precision: Annotated[str, flag("of the products: bfloat16, float32 or auto")] = "auto"
    layer_dropout: Annotated[float, flag("LayerSkip's largest rate")] = 0.0
    exit_weight: Annotated[float, flag("of each of LayerSkip's early-exit losses")] = 0.0
    cache_dropout: Annotated[float, flag("of the rows, trained on a cache with evictions")] = 0.0
    lora_rank: Annotated[int, flag("train LoRA adapters of this rank; 0: all weights")] = 0
    token: Annotated[str, flag("that stands for a latent step")] = "<thinking>"
    layer: Annotated[int, flag("I: whose hidden state a latent takes, -1: the last")] = -2
    alpha: Annotated[float, flag("weight of the hidden state beside the mixed words")] = 0.6
    mix_temperature: Annotated[float, flag("T of the words that are mixed")] = 1.0
    mix_top_p: Annotated[float, flag("nucleus of the words that are mixed")] = 0.8
    nucleus: Annotated[str, flag("standard, or reference: without the word that crosses")] = (
        "standard"
    )
    adapter: Annotated[int, flag("width of the adapter of hidden states; 0: none")] = 0
    match_norms: Annotated[
        bool, flag("bring hidden states to the length of embeddings", "--match-norms")
    ] = False
    tau: Annotated[float, flag("latents may come before tokens less probable than this")] = 0.7
    k: Annotated[int, flag("latents in a row, at most")] = 2
    targets: Annotated[str, flag("predict: the latent token is a target; ignore")] = "predict"
    predictor: Annotated[
        str | None, flag("of the base, for words-for-latents; by default the base's own")
    ] = None

    def settings(self) -> dict[str, Any]:
        """As StageSettings has them."""
        found = dict(vars(self))
        found["temperature"] = found.pop("mix_temperature")
        found["top_p"] = found.pop("mix_top_p")
        return found


@dataclass
class LengthFlags:
    """How long each stage is, and how fast: one value for all three, or one each with commas."""

    steps: Annotated[str, flag("training steps of stages 1, 2 and 3")] = "200,200,400"
    lr: Annotated[str, flag("highest learning rate")] = "5e-5"
    batch_tokens: Annotated[str, flag("padded tokens a step")] = "6144"

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


@dataclass
class PaceFlags:
    """How a run goes on."""

    resume: Annotated[bool, flag("go on from what --out holds", "--resume")] = False
    save_every: Annotated[int, flag("steps between checkpoints", min=1)] = 200
    validate_every: Annotated[int, flag("steps between looks at validation", min=1)] = 250
    stop_at: Annotated[int, flag("end at this step, to be resumed; 0: never", min=0)] = 0
    threads: Annotated[int | None, flag("threads of torch", min=1)] = None

    def pace(self) -> Any:
        from sparing.train.loop import Pace

        return Pace(self.save_every, self.validate_every, self.stop_at)


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
    """Learn to think steps without words; may be killed at any moment and resumed."""
    from sparing.latent.arms import curriculum, find_arm

    named = numbers("stages", stages, int)
    common = staging.settings() | {"base": base, "seed": seed}
    wanted = curriculum(find_arm(arm), named, common, lengths.each())
    import torch

    from sparing.latent.train import check_base, check_stages, train_latent

    if pacing.threads:
        torch.set_num_threads(pacing.threads)
    quiet_transformers()
    check_stages(wanted, out, pacing.resume)
    check_base(base, wanted)
    questions = Questions(staging.task, seed, staging.share)
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
