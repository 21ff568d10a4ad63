"""`sparing bench memory`: policies compared on problems, and the clock."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from sparing.cli.bench import check_writable, read_prompts, show
from sparing.cli.fields import flag, numbers
from sparing.cli.flags import LoadingFlags, number
from sparing.cli.progress import Progress
from sparing.errors import OptionError
from sparing.evaluate.report import Figure, report, write_json
from sparing.tasks.families import POCKET_TASKS


@dataclass
class ProblemFlags:
    """Which problems are solved, and under what: fields of Plan."""

    task: Annotated[
        str | None,
        flag(
            "as of `sparing eval`, several with commas; by default pocket's for pocket, else none"
        ),
    ] = None
    n: Annotated[int, flag("problems of each task", "--n", min=1)] = 200
    seed: Annotated[int, flag("which problems", min=0)] = 0
    split: Annotated[str, flag("test or validation")] = "test"
    policies: Annotated[
        str | None, flag("which to compare, with commas; by default all that the model can use")
    ] = None
    shares: Annotated[
        str, flag("budgets, with commas: s means question + s * the full run's thinking")
    ] = "0.1,0.25,0.5"
    local: Annotated[Any, number("most recent tokens, protected from eviction")] = None
    selection: Annotated[Any, number("how many of the unprotected survive an eviction")] = None
    max_new_tokens: Annotated[int, flag("end after so many new tokens", min=1)] = 1400
    batch_size: Annotated[int, flag("problems at a time, in each process", min=1)] = 64

    def plan(self, predicts: bool) -> Any:
        """For a model that ``predicts`` importance or does not."""
        from sparing.evaluate.bench_memory_rows import Plan, chosen_policies
        from sparing.tasks.find import find_tasks

        named = [name.strip() for name in self.policies.split(",")] if self.policies else None
        given = vars(self) | {
            "tasks": find_tasks(self.task or ""),
            "policies": chosen_policies(named, predicts),
            "shares": list(dict.fromkeys(numbers("shares", self.shares, float))),
        }
        del given["task"]
        return Plan(**given)


@dataclass
class ClockFlags:
    """What is timed: fields of Clock."""

    budget: Annotated[Any, number("what is timed: slots, or a share of the new tokens")] = 768
    new_tokens: Annotated[int, flag("what is timed: tokens a prompt", min=1)] = 4096
    rounds: Annotated[int, flag("what is timed: so many times, in turns", min=1)] = 2
    prompts: Annotated[Path | None, flag("what is timed: these prompts, one a line")] = None

    def clock(self, plan: Any, local: Any, selection: Any) -> Any:
        """On the prompts given, else on the first problem, else on one of our own."""
        from sparing.evaluate.bench_decode import PROMPTS
        from sparing.evaluate.bench_memory_speed import Clock

        asked = [plan.problems[0].question] if plan else list(PROMPTS[:1])
        if self.prompts:
            asked = read_prompts(self.prompts)
        return Clock(asked, self.budget, self.new_tokens, self.rounds, local, selection)


def memory(
    loading: LoadingFlags,
    asking: ProblemFlags,
    timing: ClockFlags,
    workers: Annotated[
        int, flag("processes for the problems, each with its part of the threads", min=1)
    ] = 1,
    json_: Annotated[
        Path | None, flag("write the figures to this file; the same command goes on", "--json")
    ] = None,
    plot: Annotated[Path | None, flag("draw accuracy over budgets into this file")] = None,
    trace_plot: Annotated[
        Path | None, flag("draw one trace, token by token, into this file")
    ] = None,
) -> None:
    """Eviction policies at the same budget against the full cache; their clock and their bytes.

    Without a task there is only the clock.
    """
    from sparing.cli.evaluate import model_fingerprint
    from sparing.cli.run import INTERRUPTED
    from sparing.evaluate.bench_memory import bench_memory
    from sparing.evaluate.bench_memory_speed import speed_figures
    from sparing.evaluate.bench_memory_trace import Target
    from sparing.evaluate.partial_results import PartialResults
    from sparing.evaluate.plots import check_picture
    from sparing.evaluate.plots_memory import draw_accuracy, draw_trace
    from sparing.memory.files import find_predictor
    from sparing.model.fingerprint import files_fingerprint
    from sparing.model.reference import ReferenceDecoder
    from sparing.model.scope import SCOPE_FILE
    from sparing.model.sources import find_model

    for path in filter(None, (json_, plot, trace_plot)):
        check_writable(path)
    for path in filter(None, (plot, trace_plot)):
        check_picture(path)
    directory = find_model(loading.model)
    home = find_predictor(loading.predictor, directory)
    if asking.task is None and timing.prompts is None and (directory / SCOPE_FILE).exists():
        asking.task = POCKET_TASKS
    plan = part = target = None
    if asking.task:
        plan = asking.plan(home is not None)
        target = Target.of(home) if trace_plot else None
        predictor = files_fingerprint(home) if home else None
        fingerprint = plan.fingerprint(model_fingerprint(loading) | {"predictor": predictor})
        part = PartialResults(json_, fingerprint) if json_ else None
    else:
        check_no_problems({"plot": plot, "trace-plot": trace_plot, "policies": asking.policies})
    clock = timing.clock(plan, asking.local, asking.selection)
    engine = loading.load()
    other = ReferenceDecoder.load(directory, engine.decoder.dtype).model
    progress = Progress()
    figures: list[Figure] = []
    raw: dict[str, Any] = {"workers": workers}
    try:
        if plan:
            with part or nullcontext(), several(workers, loading, plan) as runner:
                figures, found = bench_memory(engine, plan, part, target, progress, runner)
                raw |= found
        speed, found = speed_figures(engine, other, clock)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; {kept(part)}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    content = report([*figures, *speed], raw | found, engine.decoder.dtype)
    if plan:
        show_memory(content)
    show(content | {"rows": [r for r in content["rows"] if r["bar"] or "/" not in r["name"]]})
    if json_:
        write_json(json_, content)
    if part:
        part.remove()
    if plot:
        draw_accuracy(content, plot)
    if trace_plot and raw["trace"]:
        draw_trace(raw["trace"], trace_plot)
    elif trace_plot:
        why = "none of the first task was solved with and without a budget"
        typer.echo(f"no trace drawn: {why}", err=True)


def check_no_problems(given: dict[str, Any]) -> None:
    """Refuse what only problems can give, where there are none."""
    if wrong := [name for name, value in given.items() if value]:
        raise OptionError(f"--{wrong[0]} needs problems to solve, got none; pass --task")


def several(workers: int, loading: LoadingFlags, plan: Any) -> Any:
    """The processes that take the problems; with one, this does it itself."""
    from sparing.evaluate.process_pool import Workers

    return Workers(workers, loading.load, plan) if workers > 1 else nullcontext()


def kept(part: Any) -> str:
    """What an interrupted run leaves behind."""
    if part is None:
        return "with --json FILE the rows would have been kept"
    if not part.rows:
        return "no row was done, nothing is kept"
    return f"{len(part.rows)} rows are kept in {part.path}, the same command goes on from there"


def show_memory(content: dict[str, Any]) -> None:
    """Accuracy as a table."""
    from sparing.cli.evaluate import wide_console
    from sparing.evaluate.tables import memory_cells

    header, *rows = memory_cells(content)
    table = Table(*(cell.replace(" at ", "\nat ") for cell in header))
    for cells in rows:
        table.add_row(*cells)
    wide_console().print(table)
