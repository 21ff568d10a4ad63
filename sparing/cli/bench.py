"""`sparing bench`: measure, print a table, write the figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from sparing.cli.fields import flag, takes_flags
from sparing.cli.flags import LoadingFlags
from sparing.cli.output import JsonFlag, PlotFlag, show
from sparing.cli.progress import Progress
from sparing.cli.prompts import check_one, read_prompts

MOST_BYTES = 1_000_000_000  # of a model that is compared with transformers unasked
bench = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Measure speed and memory on this machine."
)


@bench.callback()
def _group() -> None:
    """Measure speed and memory on this machine."""


@dataclass
class BaselineFlags:
    """Other engines to measure beside."""

    llama_cpp: Annotated[
        str | None, flag("a Python interpreter that has llama-cpp-python", "--llama-cpp")
    ] = None
    openvino: Annotated[str | None, flag("a Python interpreter that has openvino-genai")] = None

    def start(
        self, model: str, budget: int | float | None = None, threads: int | None = None
    ) -> Any:
        """Those asked for, as far as they can be measured; by default on torch's threads."""
        import torch

        from sparing.evaluate.baselines.start import Baselines

        threads = threads or torch.get_num_threads()
        return Baselines.start(model, threads, self.llama_cpp, self.openvino, budget)

    def check(self) -> None:
        """Raises OptionError, before any work."""
        from sparing.evaluate.baselines.process import check_interpreter

        for name, python in (("--llama-cpp", self.llama_cpp), ("--openvino", self.openvino)):
            if python is not None:
                check_interpreter(name, python)


def tell_left_out(left_out: Mapping[str, str]) -> None:
    """A line each, on stderr."""
    for name, why in left_out.items():
        typer.echo(f"{name} is left out: {why}", err=True)


@bench.command("decode")
@takes_flags
def decode(
    loading: LoadingFlags,
    baselines: BaselineFlags,
    out: JsonFlag,
    picture: PlotFlag,
    task: Annotated[str | None, flag("ask a task's questions, as of `sparing eval`")] = None,
    prompts: Annotated[Path | None, flag("a file with a prompt a line")] = None,
    n: Annotated[int, flag("rounds; each figure is a median over them", "--n", min=1)] = 5,
    text: Annotated[
        Path | None, flag("take perplexity of this .jsonl file's questions and answers")
    ] = None,
    transformers: Annotated[
        bool | None, flag("compare with transformers; by default with models of up to 1 GB")
    ] = None,
    long: Annotated[bool, flag("add a run of 4,096 sampled tokens; minutes", "--long")] = False,
) -> None:
    """Plain decoding, verification, a long run under a budget; beside transformers, llama.cpp and
    OpenVINO GenAI."""
    from sparing.evaluate.bench_decode import PROMPTS, DecodeBench, bench_decode
    from sparing.evaluate.bench_decode_long import BUDGET
    from sparing.evaluate.bench_decode_parts import FILL_TOKENS, parts
    from sparing.evaluate.bench_decode_text import distinct_ids, read_text, windows
    from sparing.evaluate.plots import draw_decode
    from sparing.evaluate.report import report

    check_one(task, prompts)
    chosen = read_prompts(prompts) if prompts else PROMPTS
    if task:
        chosen = questions(task, len(PROMPTS))
    written = read_text(text) if text else None
    engine = loading.load()
    other = in_transformers(loading.model, engine, transformers)
    how = {name: getattr(loading, name) for name in ("weights", "dtype", "decoder")}
    with (
        Progress() as progress,
        baselines.start(loading.model, BUDGET if long else None) as started,
    ):
        measured = DecodeBench(
            engine,
            other,
            chosen,
            n,
            distinct_ids(engine, FILL_TOKENS, written),
            windows(engine, written) if written else [],
            how,
            started,
        )
        told = dict(started.left_out)
        tell_left_out(told)
        figures, raw = bench_decode(measured, parts(long), progress)
    tell_left_out({name: why for name, why in raw["left_out"].items() if name not in told})
    content = report(loading.model, figures, raw | {"loading": how}, engine.decoder.dtype)
    show(content)
    out.write(content)
    picture.draw(draw_decode, content)


def questions(task: str, most: int) -> list[str]:
    """Of a command's ``--task``: the first ``most``, of each task in turn."""
    from sparing.evaluate.timing import alternating
    from sparing.tasks.find import find_tasks

    problems = alternating([found.problems(most, 0) for found in find_tasks(task)])
    return [problem.question for problem in problems[:most]]


def in_transformers(model: str, engine: Any, wanted: bool | None) -> Any:
    """The model in transformers, in float32 where ours is packed; None: not compared with."""
    import torch

    from sparing.evaluate.baselines.transformers import in_memory
    from sparing.evaluate.bench_decode_load import weight_bytes
    from sparing.model.gguf_files import is_gguf
    from sparing.model.sources import find_model

    path = find_model(model)
    if wanted is False or (wanted is None and weight_bytes(path) > MOST_BYTES):
        return None
    dtype = torch.float32 if is_gguf(path) else engine.decoder.dtype
    return in_memory(path, dtype)


@bench.command("pocket")
@takes_flags
def pocket(
    loading: LoadingFlags,
    out: JsonFlag,
    n: Annotated[int, flag("problems of each family and level", "--n", min=1)] = 200,
    seed: Annotated[int, flag("which problems", min=0)] = 0,
    short_with: Annotated[str | None, flag("a model briefly trained as pocket, to compare")] = None,
    short_without: Annotated[
        str | None, flag("the same, trained with --layer-dropout 0 --exit-weight 0")
    ] = None,
) -> None:
    """Accuracy with and without thinking, speed, and what skipping layers would cost."""
    from sparing.api import load
    from sparing.evaluate.baselines.transformers import in_memory
    from sparing.evaluate.bench_pocket import bench_pocket
    from sparing.evaluate.report import report
    from sparing.model.sources import find_model
    from sparing.tasks.find import family_tasks

    engine = loading.load()
    other = in_memory(find_model(loading.model), engine.decoder.dtype)
    named = {"with": short_with, "without": short_without}
    controls = {how: load(name, dtype=loading.dtype) for how, name in named.items() if name}
    with Progress() as progress:
        figures, raw = bench_pocket(engine, other, controls, family_tasks(), n, seed, progress)
    content = report(loading.model, figures, raw, engine.decoder.dtype)
    show(content)
    out.write(content)
