"""`sparing train reason`: stage 1, explicit chain of thought."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from sparing.cli.flags import flag, quiet_transformers, takes_flags
from sparing.cli.run import INTERRUPTED

POCKET, SCRATCH = "pocket", "SCRATCH"

train = typer.Typer(help="Train models, and what the savings need of them.", no_args_is_help=True)


@train.callback()
def _group() -> None:
    """Train models, and what the savings need of them."""


@dataclass
class SettingsFlags:
    """What decides the weights: the fields of TrainSettings."""

    base: Annotated[str, flag("SCRATCH (pocket's own shape), a directory, or a hub id")] = SCRATCH
    task: Annotated[str, flag("pocket, or a file of worked solutions (GSM8K, ProsQA)")] = POCKET
    seed: Annotated[int, flag("of questions, batches and weights")] = 0
    share: Annotated[float, flag("of pocket's questions, to try a recipe")] = 1.0
    steps: Annotated[int, flag("training steps")] = 4500
    batch_tokens: Annotated[int, flag("padded tokens a step")] = 6144
    optimizer: Annotated[str, flag("muon or adamw")] = "muon"
    lr: Annotated[float | None, flag("learning rate; by default the optimizer's own")] = None
    decay: Annotated[float, flag("last share of the steps, over which the rate falls to 0")] = 0.3
    precision: Annotated[str, flag("of the products: bfloat16, float32 or auto")] = "auto"
    layer_dropout: Annotated[float, flag("LayerSkip's largest rate")] = 0.1
    exit_weight: Annotated[float, flag("of each of LayerSkip's early-exit losses")] = 0.1
    cache_dropout: Annotated[float, flag("of the rows, trained on a cache with evictions")] = 0.0
    lora_rank: Annotated[int, flag("train LoRA adapters of this rank; 0: all weights")] = 0


@train.command()
@takes_flags
def reason(
    settings: SettingsFlags,
    out: Annotated[Path, flag("directory for weights, checkpoints and settings")],
    resume: Annotated[bool, flag("go on from the newest checkpoint in --out", "--resume")] = False,
    save_every: Annotated[int, flag("steps between checkpoints", min=1)] = 200,
    validate_every: Annotated[int, flag("steps between looks at validation", min=1)] = 250,
    stop_at: Annotated[int, flag("end at this step, to be resumed; 0: never", min=0)] = 0,
    threads: Annotated[int | None, flag("threads of torch", min=1)] = None,
) -> None:
    """Stage 1: fine-tune on question, thinking, answer; may be killed at any moment and resumed."""
    from sparing.train.settings import TrainSettings

    wanted = TrainSettings(**vars(settings))
    import torch

    from sparing.train.loop import Pace
    from sparing.train.reason import check_out, train_reason

    if threads:
        torch.set_num_threads(threads)
    check_out(out, wanted, resume)
    solutions = worked_solutions(wanted.task)
    model, tokenizer = base_model(wanted)
    corpus, asked = examples(tokenizer, wanted, solutions)
    pace = Pace(save_every, validate_every, stop_at)
    with TrainingBar(wanted.steps, out) as shown:
        done = train_reason(
            model,
            tokenizer,
            corpus,
            wanted,
            out,
            resume=resume,
            on_report=shown.report,
            pace=pace,
        )
    if done and wanted.task == POCKET:
        finish_pocket(out, asked, wanted.base)
    shown.end(done, stop_at)


def worked_solutions(task: str) -> Any:
    """The file's, where the task is one: what is wrong with it is said before weights load."""
    from sparing.tasks.solutions import read_solutions

    return None if task == POCKET else read_solutions(Path(task))


def base_model(settings: Any) -> tuple[Any, Any]:
    """Model and tokenizer to begin with; transformers keeps quiet meanwhile."""
    quiet_transformers()
    if settings.base == SCRATCH:
        from sparing.pocket.recipe import pocket_base

        return pocket_base(settings.seed)
    from sparing.train.reason import load_base

    return load_base(settings.base)


def examples(tokenizer: Any, settings: Any, solutions: Any) -> tuple[Any, Any]:
    """The corpus of a task and, for pocket's families, which questions it asks."""
    if solutions is None:
        from sparing.pocket.recipe import pocket_corpus

        return pocket_corpus(tokenizer, settings.seed, settings.share)
    from sparing.train.solutions import solutions_corpus

    return solutions_corpus(tokenizer, solutions, Path(settings.task).stem, settings.seed), None


def finish_pocket(out: Path, asked: Any, base: str) -> None:
    """Beside the weights: what they and their base were trained on, so that no test asks it; and
    which questions to flag, unless the base knows more than pocket's."""
    from sparing.model.scope import SCOPE_FILE
    from sparing.model.sources import find_model
    from sparing.pocket.model import save_scope
    from sparing.tasks.splits import QUESTIONS_FILE, QuestionSet

    origin = None if base == SCRATCH else find_model(base)
    if origin and (origin / QUESTIONS_FILE).exists():
        asked |= QuestionSet.load(origin / QUESTIONS_FILE)
    asked.save(out / QUESTIONS_FILE)
    if origin is None or (origin / SCOPE_FILE).exists():
        save_scope(out)


class TrainingBar:
    """A bar where there is a terminal; lines of JSON where there is none, for a log. What is
    interrupted within it is kept in ``out``: it says so and ends the command."""

    def __init__(self, steps: int, out: Path) -> None:
        self.out = out
        self.console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.task = self.bar.add_task("starting", total=steps)

    def __enter__(self) -> "TrainingBar":
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *more: Any) -> None:
        self.bar.stop()
        if kind is KeyboardInterrupt:
            self.say(f"interrupted, kept in {self.out}; the same command with --resume goes on")
            raise typer.Exit(INTERRUPTED) from None

    def end(self, done: bool, stop_at: int) -> None:
        """Say how it ended."""
        self.say(f"{self.out} is done" if done else f"stopped at {stop_at}; --resume goes on")

    def report(self, report: dict[str, Any]) -> None:
        """Each step on the bar; what validation says stays on the screen."""
        said = f"loss {report['loss']:.4f}"
        if "tokens_per_s" in report:
            said += f", {report['tokens_per_s']:,.0f} tokens/s"
        self.bar.update(self.task, completed=report["step"], description=said)
        if "validation" in report:
            self.say(json.dumps(rounded(report)))

    def at(self, done: int, what: str) -> None:
        """So much of the whole is done."""
        self.bar.update(self.task, completed=done, description=what)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)


def rounded(value: Any) -> Any:
    """Figures to four places, however deep."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return round(value, 4) if isinstance(value, float) else value
