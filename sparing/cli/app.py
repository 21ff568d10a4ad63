"""`sparing`: run, chat, models, serve, eval, compare, train, tune, bench, help."""

from typing import Annotated, Any

import typer

from sparing import __version__
from sparing.cli.arguments import TextCommand
from sparing.cli.bench import bench
from sparing.cli.bench_all import all_ as bench_all
from sparing.cli.bench_all import headline
from sparing.cli.bench_depth import depth as bench_depth
from sparing.cli.bench_device import device as bench_device
from sparing.cli.bench_hub import hub as bench_hub
from sparing.cli.bench_latent import latent as bench_latent
from sparing.cli.bench_memory import memory
from sparing.cli.bench_serve import serve as bench_serve
from sparing.cli.chat import chat
from sparing.cli.compare import compare
from sparing.cli.evaluate import evaluate
from sparing.cli.fields import takes_flags
from sparing.cli.models import models
from sparing.cli.run import run
from sparing.cli.serve import serve
from sparing.cli.signals import INTERRUPTED
from sparing.cli.train import train
from sparing.cli.train_ablations import ablations
from sparing.cli.train_latent import latent
from sparing.cli.train_predictor import predictor
from sparing.cli.tune import depth as tune_depth
from sparing.cli.tune import tune

NAME = "sparing"
UsageError: Any = typer.BadParameter.__bases__[0]  # typer does not export it

app = typer.Typer(
    name=NAME,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help, in half the time
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sparing {__version__}")
        raise typer.Exit


@app.callback()
def group(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", is_eager=True, callback=show_version
        ),
    ] = False,
) -> None:
    """Open reasoning models that spare memory, depth and words."""


for command in (run, chat, models, serve, compare):
    app.command(cls=TextCommand)(takes_flags(command))
app.command("eval")(takes_flags(evaluate))
bench.command("memory")(takes_flags(memory))
bench.command("depth")(takes_flags(bench_depth))
bench.command("serve")(takes_flags(bench_serve))
bench.command("hub")(takes_flags(bench_hub))
bench.command("device")(takes_flags(bench_device))
bench.command("latent")(bench_latent)
bench.command("all")(takes_flags(bench_all))
bench.command("headline")(headline)
app.add_typer(bench, name="bench")
train.command("predictor")(takes_flags(predictor))
train.command("latent")(takes_flags(latent))
train.command("ablations")(takes_flags(ablations))
app.add_typer(train, name="train")
tune.command("depth")(takes_flags(tune_depth))
app.add_typer(tune, name="tune")


@app.command("help")
def help_(
    command: Annotated[list[str] | None, typer.Argument(help="as `train reason`")] = None,
) -> None:
    """Show this, or what a command does."""
    app([*(command or []), "--help"], standalone_mode=False, prog_name=NAME)


def dispatch() -> int:
    """Run the command line; its exit code. Raises what commands raise."""
    try:
        code = app(standalone_mode=False, prog_name=NAME)
    except UsageError as error:
        if error.ctx and error.message == error.ctx.get_help():  # no command, so the help is shown
            error.show()
        else:
            typer.echo(f"error: {' '.join(error.format_message().split())}", err=True)
        return int(error.exit_code)
    except typer.Abort:
        return INTERRUPTED
    return code if isinstance(code, int) else 0
