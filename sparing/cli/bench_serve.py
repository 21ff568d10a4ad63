"""`sparing bench serve`: a server under load, in a process of its own."""

from pathlib import Path
from typing import Annotated

from sparing.cli.bench import check_writable, read_prompts, show
from sparing.cli.flags import LoadingFlags, flag
from sparing.cli.progress import Progress
from sparing.cli.serve import needs_extra
from sparing.errors import OptionError
from sparing.evaluate.report import report, write_json


def serve(
    loading: LoadingFlags,
    task: Annotated[
        str | None, flag("whose problems are asked, as of `sparing eval`; pocket's for pocket")
    ] = None,
    prompts: Annotated[Path | None, flag("a file with a question a line, or .jsonl")] = None,
    n: Annotated[int, flag("problems of each task", "--n", min=1)] = 16,
    seed: Annotated[int, flag("which problems", min=0)] = 0,
    new_tokens: Annotated[
        int | None, flag("tokens a request; by default to its end", min=1)
    ] = None,
    rounds: Annotated[int, flag("of each comparison; medians are taken", min=1)] = 5,
    probes: Annotated[int, flag("first tokens, idle and loaded", min=1)] = 60,
    requests: Annotated[int, flag("for the memory; early is a tenth of them", min=2)] = 1000,
    json_: Annotated[Path | None, flag("write the figures to this file", "--json")] = None,
) -> None:
    """Throughput of 32 at once, first token beside 8, memory after 1,000, time over the engine."""
    from sparing.evaluate.bench_serve import Serve, bench_serve
    from sparing.model.scope import SCOPE_FILE
    from sparing.model.sources import find_model
    from sparing.tasks.families import POCKET_TASKS
    from sparing.tasks.find import find_tasks

    needs_extra()
    if json_:
        check_writable(json_)
    directory = find_model(loading.model)
    if not task and not prompts:
        if not (directory / SCOPE_FILE).exists():
            raise OptionError("a task or prompts must be given, got neither; pass --prompts FILE")
        task = POCKET_TASKS
    questions = read_prompts(prompts) if prompts else []
    if task:
        questions += [p.question for t in find_tasks(task) for p in t.problems(n, seed)]
    engine = loading.load()
    if not engine.chat.has_template:
        raise OptionError(
            f"bench serve needs a model with a chat template, and {loading.model} has none; "
            "take another"
        )
    plan = Serve(questions, new_tokens, rounds, probes, requests)
    with Progress() as progress:
        figures, raw = bench_serve(engine, server_flags(loading), plan, progress)
    content = report(figures, raw, engine.decoder.dtype)
    show(content)
    if json_:
        write_json(json_, content)


def server_flags(loading: LoadingFlags) -> list[str]:
    """The flags that load the same model."""
    given = {
        "--model": loading.model,
        "--dtype": loading.dtype,
        "--threads": loading.threads,
        "--decoder": loading.decoder,
        "--predictor": loading.predictor,
    }
    return [
        part for name, value in given.items() if value is not None for part in (name, str(value))
    ]
