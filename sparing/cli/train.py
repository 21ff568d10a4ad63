"""`sparing train reason`: stage 1, explicit chain of thought."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from sparing.cli.fields import flag, takes_flags
from sparing.cli.flags import quiet_transformers
from sparing.cli.run import INTERRUPTED
from sparing.train.settings import TrainSettings, check_resumed

POCKET, SCRATCH = "pocket", "SCRATCH"

train = typer.Typer(
    help="Train models, and what the savings need of them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@train.callback()
def _group() -> None:
    """Train models, and what the savings need of them."""


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


@train.command()
@takes_flags
def reason(
    settings: TrainSettings,
    pacing: PaceFlags,
    out: Annotated[Path, flag("directory for weights, checkpoints and settings")],
) -> None:
    """Stage 1: fine-tune on worked solutions.

    It may be killed at any moment and resumed.
    """
    check_resumed(out, pacing.resume)
    solutions = worked_solutions(settings.task)
    import torch

    from sparing.train.reason import check_out, train_reason

    if pacing.threads:
        torch.set_num_threads(pacing.threads)
    check_out(out, settings, pacing.resume)
    model, tokenizer = base_model(settings)
    corpus, asked = examples(tokenizer, settings, solutions)
    with TrainingBar(settings.steps, out) as shown:
        done = train_reason(
            model,
            tokenizer,
            corpus,
            settings,
            out,
            resume=pacing.resume,
            on_report=shown.report,
            pace=pacing.pace(),
        )
    if done and settings.task == POCKET:
        finish_pocket(out, asked, settings.base)
    shown.end(done, pacing.stop_at)


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
