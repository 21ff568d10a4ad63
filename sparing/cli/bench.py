"""`sparing bench`: measure, print a table, write the figures."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from sparing.cli.fields import flag, takes_flags
from sparing.cli.flags import LoadingFlags
from sparing.cli.progress import Progress
from sparing.errors import OptionError, reason
from sparing.evaluate.report import against_bar, origin_line, report, without_home, write_json
from sparing.evaluate.timing import alternating

CHAT = frozenset(  # categories of MT-bench, in Spec-Bench
    ["writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities"]
)
MOST_BYTES = 1_000_000_000  # of a model that is compared with transformers unasked
bench = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Measure speed and memory on this machine.",
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
        """Those asked for, as far as they can be measured."""
        from sparing.evaluate.baselines.start import Baselines

        threads = threads or torch_threads()
        return Baselines.start(model, threads, self.llama_cpp, self.openvino, budget)

    def check(self) -> None:
        """Raises OptionError, before any work."""
        from sparing.evaluate.baselines.process import check_interpreter

        for name, python in (("--llama-cpp", self.llama_cpp), ("--openvino", self.openvino)):
            if python is not None:
                check_interpreter(name, python)


def torch_threads() -> int:
    """Baselines run on as many."""
    import torch

    return torch.get_num_threads()


def tell_left_out(left_out: Mapping[str, str]) -> None:
    """A line each, on stderr."""
    for name, why in left_out.items():
        typer.echo(f"{name} is left out: {why}", err=True)


@bench.command("decode")
@takes_flags
def decode(
    loading: LoadingFlags,
    baselines: BaselineFlags,
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
    json_: Annotated[Path | None, flag("write the figures to this file", "--json")] = None,
    plot: Annotated[Path | None, flag("draw the bounded run into this file")] = None,
) -> None:
    """Plain decoding, verification, a long run under a budget; beside transformers, llama.cpp and
    OpenVINO GenAI."""
    from sparing.evaluate.bench_decode import PROMPTS, DecodeBench, bench_decode
    from sparing.evaluate.bench_decode_long import BUDGET
    from sparing.evaluate.bench_decode_parts import FILL_TOKENS, parts
    from sparing.evaluate.bench_decode_text import distinct_ids, read_text, windows
    from sparing.evaluate.plots import check_picture, draw_decode
    from sparing.tasks.find import find_tasks

    check_one(task, prompts)
    baselines.check()
    chosen = read_prompts(prompts) if prompts else PROMPTS
    if task:
        problems = [found.problems(len(PROMPTS), 0) for found in find_tasks(task)]
        chosen = [problem.question for problem in alternating(problems)[: len(PROMPTS)]]
    for path in filter(None, (json_, plot)):
        check_writable(path)
    if plot:
        check_picture(plot)
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
    raw["loading"] = how
    content = {"model": without_home(loading.model), **report(figures, raw, engine.decoder.dtype)}
    show(content)
    if json_:
        write_json(json_, content)
    if plot:
        draw_decode(content, plot)


def in_transformers(model: str, engine: Any, wanted: bool | None) -> Any:
    """The model in transformers, in float32 where ours is packed; None: not compared with."""
    import torch

    from sparing.evaluate.bench_decode_load import weight_bytes
    from sparing.model.gguf_files import is_gguf
    from sparing.model.reference import ReferenceDecoder
    from sparing.model.sources import find_model

    path = find_model(model)
    if wanted is False or (wanted is None and weight_bytes(path) > MOST_BYTES):
        return None
    dtype = torch.float32 if is_gguf(path) else engine.decoder.dtype
    return ReferenceDecoder.load(path, dtype).model


@bench.command("pocket")
@takes_flags
def pocket(
    loading: LoadingFlags,
    n: Annotated[int, flag("problems of each family and level", "--n", min=1)] = 200,
    seed: Annotated[int, flag("which problems", min=0)] = 0,
    short_with: Annotated[str | None, flag("a model briefly trained as pocket, to compare")] = None,
    short_without: Annotated[
        str | None, flag("the same, trained with --layer-dropout 0 --exit-weight 0")
    ] = None,
    json_: Annotated[Path | None, flag("write the figures to this file", "--json")] = None,
) -> None:
    """Accuracy with and without thinking, speed, and what skipping layers would cost."""
    from sparing.api import load
    from sparing.evaluate.bench_pocket import bench_pocket
    from sparing.model.reference import ReferenceDecoder
    from sparing.model.sources import find_model
    from sparing.tasks.find import family_tasks

    if json_:
        check_writable(json_)
    engine = loading.load()
    other = ReferenceDecoder.load(find_model(loading.model), engine.decoder.dtype).model
    named = {"with": short_with, "without": short_without}
    controls = {how: load(name, dtype=loading.dtype) for how, name in named.items() if name}
    with Progress() as progress:
        figures, raw = bench_pocket(engine, other, controls, family_tasks(), n, seed, progress)
    content = report(figures, raw, engine.decoder.dtype)
    show(content)
    if json_:
        write_json(json_, content)


def check_one(task: str | None, prompts: Path | None) -> None:
    """Refuse a task and prompts at once, where either is what is asked."""
    if task and prompts:
        raise OptionError("a task or prompts must be given, got both; leave one out")


def read_prompts(path: Path) -> list[str]:
    """A prompt a line, as text or, in a .jsonl file, as an object with ``prompt`` or ``turns``."""
    return [prompt for found in read_groups(path).values() for prompt in found]


def read_groups(path: Path) -> dict[str, list[str]]:
    """The prompts of ``read_prompts``, by the ``category`` of each; where all of MT-bench's are
    there, as in Spec-Bench, those are one, chat, with a prompt of each in turn."""
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
        found = [line for line in lines if line]
        groups: dict[str, list[str]] = {}
        for line in found:
            row = json.loads(line) if path.suffix == ".jsonl" else {"prompt": line}
            turns = [row["prompt"]] if "prompt" in row else row["turns"]
            if not isinstance(turns, list) or not isinstance(prompt := turns[0], str):
                raise TypeError(f"no text in {line}")
            category = row.get("category", path.stem)
            groups.setdefault(category, []).append(prompt)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise OptionError(
            f"--prompts must be a text file with a prompt a line, or a .jsonl file with prompt or "
            f"turns in each, got {path}: {reason(error)}"
        ) from None
    if not groups:
        raise OptionError(f"--prompts must hold a prompt or more, got none in {path}")
    if not groups.keys() >= CHAT:
        return groups
    parts = [groups.pop(name) for name in list(groups) if name in CHAT]
    return {"chat": alternating(parts), **groups}


def check_writable(path: Path) -> None:
    """Refuse a file that could not be written, before the work that it is for."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"{path} must be a file to write, got: {reason(error)}") from None
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise OptionError(f"{path} must be a file to write, got a directory or no permission")


def show(content: dict[str, Any]) -> None:
    """The figures as a table, each beside its bar."""
    table = Table("figure", "value", "bar", "")
    for row in content["rows"]:
        value = f"{row['value']:.2f} {row['unit']}"
        table.add_row(row["what"] or row["name"], value, *against_bar(row))
    console = Console()
    console.print(table)
    console.print(origin_line(content), highlight=False)
