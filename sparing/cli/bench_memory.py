"""`sparing bench memory`: policies compared on problems, and the clock."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from sparing.cli.fields import flag, numbers
from sparing.cli.flags import LoadingFlags, number
from sparing.cli.output import (
    PlotFlag,
    RowsFlag,
    check_drawable,
    draw_into,
    kept_rows,
    model_fingerprint,
    show,
    show_cells,
)
from sparing.cli.progress import Progress
from sparing.cli.prompts import read_prompts, task_or_pockets
from sparing.cli.workers import WorkersFlag
from sparing.errors import OptionError


@dataclass
class ProblemFlags:
    """Which problems are solved, and under what: fields of MemoryExperiment."""

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
    max_new_tokens: Annotated[int, flag("new tokens at most", min=1)] = 1400
    batch_size: Annotated[int, flag("problems at a time, in each process", min=1)] = 64

    def experiment(self, task: str, predicts: bool) -> Any:
        """For a model that ``predicts`` importance or does not."""
        from sparing.evaluate.bench_memory_rows import MemoryExperiment, chosen_policies
        from sparing.tasks.find import find_tasks

        named = [name.strip() for name in self.policies.split(",")] if self.policies else None
        given = vars(self) | {
            "tasks": find_tasks(task),
            "policies": chosen_policies(named, predicts),
            "shares": list(dict.fromkeys(numbers("shares", self.shares, float))),
        }
        del given["task"]
        return MemoryExperiment(**given)


@dataclass
class ClockFlags:
    """What is timed: fields of Clock."""

    budget: Annotated[Any, number("of the timing: slots, or a share of the new tokens")] = 768
    new_tokens: Annotated[int, flag("new tokens of the timing, for each prompt", min=1)] = 4096
    rounds: Annotated[int, flag("repetitions of the timing, all arms in turns", min=1)] = 2
    prompts: Annotated[Path | None, flag("prompts of the timing, one a line")] = None

    def clock(self, experiment: Any, local: Any, selection: Any) -> Any:
        """On the prompts given, else on the first problem, else on one of our own."""
        from sparing.evaluate.bench_decode import PROMPTS
        from sparing.evaluate.bench_memory_speed import Clock

        asked = [experiment.problems[0].question] if experiment else list(PROMPTS[:1])
        if self.prompts:
            asked = read_prompts(self.prompts)
        return Clock(asked, self.budget, self.new_tokens, self.rounds, local, selection)


def memory(
    loading: LoadingFlags,
    asking: ProblemFlags,
    timing: ClockFlags,
    out: RowsFlag,
    picture: PlotFlag,
    working: WorkersFlag,
    trace_plot: Annotated[
        Path | None, flag("draw one trace, token by token, into this file")
    ] = None,
) -> None:
    """Eviction policies at the same budget against the full cache; their clock and their bytes.

    Without a task there is only the clock.
    """
    from sparing.evaluate.baselines.transformers import in_memory
    from sparing.evaluate.bench_memory import bench_memory, memory_cells
    from sparing.evaluate.bench_memory_speed import speed_figures
    from sparing.evaluate.bench_memory_trace import Target
    from sparing.evaluate.plots_memory import draw_accuracy
    from sparing.evaluate.report import Figure, report
    from sparing.memory.files import find_predictor
    from sparing.model.fingerprint import files_fingerprint
    from sparing.model.sources import find_model

    if trace_plot:
        check_drawable(trace_plot)
    directory = find_model(loading.model)
    home = find_predictor(loading.predictor, directory)
    experiment = part = target = None
    if task := task_or_pockets(asking.task, timing.prompts, directory):
        experiment = asking.experiment(task, home is not None)
        target = Target.of(home) if trace_plot else None
        predictor = {"predictor": files_fingerprint(home) if home else None}
        part = out.part(experiment.fingerprint(model_fingerprint(loading) | predictor))
    else:
        given: dict[str, Any] = {
            "plot": picture.plot,
            "trace-plot": trace_plot,
            "policies": asking.policies,
        }
        given |= {"workers": working.workers, "ray": working.ray}
        check_no_problems(given)
    clock = timing.clock(experiment, asking.local, asking.selection)
    engine = loading.load()
    other = in_memory(directory, engine.decoder.dtype)
    figures: list[Figure] = []
    raw: dict[str, Any] = {}
    with kept_rows(part):
        if experiment:
            with working.runner(loading, experiment.run) as runner:
                raw["workers"] = runner.workers if runner else 1
                figures, of_rows = bench_memory(
                    engine, experiment, part, target, Progress(), runner
                )
                raw |= of_rows
        speed, of_clock = speed_figures(engine, other, clock)
    content = report(loading.model, [*figures, *speed], raw | of_clock, engine.decoder.dtype)
    if experiment:
        show_cells(memory_cells(content), lambda cell: cell.replace(" at ", "\nat "))
    show(content, [row for row in content["rows"] if is_summary(row["name"])])
    out.finish(content, part)
    picture.draw(draw_accuracy, content)
    if trace_plot:
        draw_or_say(raw["trace"], trace_plot)


def is_summary(name: str) -> bool:
    """Whether a figure is not in the table of accuracies nor one of many of its kind."""
    return "/" not in name or name.startswith("paired_low")


def draw_or_say(trace: Any, path: Path) -> None:
    """Draw a trace, or say why it is missing."""
    from sparing.evaluate.plots_trace import draw_trace

    if trace:
        draw_into(path, draw_trace, trace)
    else:
        why = "none of the first task was solved with and without a budget"
        typer.echo(f"no trace drawn: {why}", err=True)


def check_no_problems(given: dict[str, Any]) -> None:
    """Refuse what only problems can give, where there are none."""
    if wrong := [name for name, value in given.items() if value]:
        raise OptionError(f"--{wrong[0]} needs problems to solve, got none; pass --task")
