"""`sparing bench all` and `sparing bench headline`: all savings, and the models' reports as one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from sparing.cli.bench import BaselineFlags, tell_left_out
from sparing.cli.fields import flag, takes_flags
from sparing.cli.flags import LoadingFlags, number
from sparing.cli.output import (
    PlotFlag,
    RowsFlag,
    kept_rows,
    model_fingerprint,
    show,
    wide_console,
)
from sparing.cli.progress import Progress
from sparing.cli.prompts import check_one, read_prompts

PROBLEMS, RUNS = 8, 2  # of each task; of prompts
TOKENS_OF_PROBLEMS, SHARE = 1400, 0.25


@dataclass
class AskedFlags:
    """What is asked, and how: a task's problems, or prompts."""

    task: Annotated[
        str | None, flag("as of `sparing eval`, several with commas; pocket-hard for pocket")
    ] = None
    prompts: Annotated[
        Path | None, flag("instead of problems a prompt a line; without both some of ours")
    ] = None
    n: Annotated[
        int | None, flag("problems of each task (8), or answers to prompts (2)", "--n", min=1)
    ] = None
    seed: Annotated[int, flag("which problems", min=0)] = 0
    sample_seed: Annotated[int, flag("of the noise", min=0)] = 0
    greedy: Annotated[bool, flag("instead of sampled at T 0.8, top-p 0.95", "--greedy")] = False
    budget: Annotated[
        Any, number("of arms that spare memory: slots (768), or a share of the thought (0.25)")
    ] = None
    new_tokens: Annotated[
        int | None, flag("tokens a prompt (4096); of problems at most (1400)", min=1)
    ] = None

    def experiment(self, arms: Sequence[str], directory: Path) -> Any:
        """For the model in a directory; raises OptionError."""
        from sparing.evaluate.bench_all import BUDGET, NEW_TOKENS
        from sparing.evaluate.bench_all_rows import (
            SavingsExperiment,
            draw_with_warm_up,
            prompt_problems,
        )
        from sparing.evaluate.bench_decode import PROMPTS
        from sparing.model.scope import SCOPE_FILE
        from sparing.tasks.find import find_tasks

        check_one(self.task, self.prompts)
        named = self.task
        if not self.prompts and (directory / SCOPE_FILE).exists():
            named = named or "pocket-hard"
        tasks = find_tasks(named) if named else []
        if tasks:
            asked = draw_with_warm_up(tasks, self.n or PROBLEMS, self.seed)
        else:
            given = read_prompts(self.prompts) if self.prompts else PROMPTS[:-1]
            asked = prompt_problems(given, self.n or RUNS, PROMPTS)
        return SavingsExperiment(
            arms,
            *asked,
            tasks,
            budget=self.budget or (SHARE if tasks else BUDGET),
            new_tokens=self.new_tokens or (TOKENS_OF_PROBLEMS if tasks else NEW_TOKENS),
            greedy=self.greedy,
            seed=self.sample_seed,
        )


def all_(
    loading: LoadingFlags,
    asking: AskedFlags,
    baselines: BaselineFlags,
    out: RowsFlag,
    picture: PlotFlag,
    arms: Annotated[
        str | None, flag("which, with commas; by default all that can be measured")
    ] = None,
) -> None:
    """Time, KV bytes and words against transformers, llama.cpp and OpenVINO GenAI: each saving
    alone, each pair, all together."""
    from sparing.evaluate.bench_all_arms import chosen_arms
    from sparing.evaluate.headline import as_headline
    from sparing.evaluate.plots_all import draw_headline
    from sparing.latent.files import has_latents
    from sparing.model.sources import find_model

    directory = find_model(loading.model)
    experiment = asking.experiment((), directory)
    with baselines.start(loading.model, experiment.budget, loading.threads) as started:
        chosen = chosen_arms(arms, started, has_latents(directory))
        experiment = replace(experiment, chosen=chosen)
        tell_left_out(started.left_out)
        part = out.part(experiment.fingerprint(decisive(loading, directory)))
        content = measured(loading, directory, experiment, part, started)
    show_headline([as_headline(content)])
    undrafted = [r for r in content["rows"] if r["name"].startswith("time_vs_undrafted")]
    if undrafted:
        show(content, undrafted)
    out.finish(content, part)
    picture.draw(draw_headline, [as_headline(content)])


def decisive(loading: LoadingFlags, directory: Path) -> dict[str, Any]:
    """All of what is loaded that decides the figures."""
    from sparing.memory.files import find_predictor
    from sparing.model.fingerprint import files_fingerprint

    home = find_predictor(loading.predictor, directory)
    predictor = files_fingerprint(home) if home else None
    return model_fingerprint(loading) | {"threads": loading.threads, "predictor": predictor}


def measured(
    loading: LoadingFlags, directory: Path, experiment: Any, part: Any, started: Any
) -> dict[str, Any]:
    """The report, every arm on the same engine."""
    from sparing.evaluate.baselines.llama_cpp import LLAMA_CPP
    from sparing.evaluate.bench_all import headline_figures, left_out
    from sparing.evaluate.bench_all_arms import load_arms
    from sparing.evaluate.bench_decode_text import distinct_ids
    from sparing.evaluate.report import report
    from sparing.latent.files import has_latents

    engine = loading.load()
    with kept_rows(part):
        loaded = load_arms(experiment.arms, engine, directory, started)
        if LLAMA_CPP in experiment.arms:
            started.llama_cpp.tune(distinct_ids(engine, experiment.new_tokens // 2))
        rows = experiment.collect(loaded, part, Progress())
    raw = {
        "plan": experiment.to_dict(),
        "left_out": left_out(rows, started, has_latents(directory)),
        "baselines": started.described(),
        **in_effect(engine),
        "rows": experiment.columns(rows),
    }
    return report(loading.model, headline_figures(rows), raw, engine.decoder.dtype)


def in_effect(engine: Any) -> dict[str, Any]:
    """What the arms came to use of what the model brings: policy, layer sets, switch."""
    return {
        "policy": "learned" if engine.predictor else "window",
        "layer_sets": sorted(engine.drafting.sets),
        "switch": engine.latents[0].switch if engine.latents else None,
    }


@takes_flags
def headline(
    files: Annotated[list[Path], typer.Argument(help="reports of `sparing bench all`")],
    picture: PlotFlag,
) -> None:
    """Reports of `sparing bench all` as one table and one picture."""
    from sparing.evaluate.headline import read_headlines
    from sparing.evaluate.plots_all import draw_headline

    contents = read_headlines(files)
    show_headline(contents)
    picture.draw(draw_headline, contents)


def show_headline(contents: Sequence[dict[str, Any]]) -> None:
    """An arm a line, and below what was asked."""
    from sparing.evaluate.headline import headline_cells, headline_note

    header, *rows = headline_cells(contents)
    table = Table(*(cell.replace(" ", "\n") for cell in header))
    table.columns[1].no_wrap = True
    for cells in rows:
        table.add_row(*cells)
    console = wide_console()
    console.print(table)
    for content in contents:
        console.print(headline_note(content), highlight=False, markup=False)
