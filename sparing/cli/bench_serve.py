"""`sparing bench serve`: a server under load, in a process of its own."""

from pathlib import Path
from typing import Annotated

from sparing.cli.fields import flag
from sparing.cli.flags import LoadingFlags
from sparing.cli.output import JsonFlag, show
from sparing.cli.progress import Progress
from sparing.cli.prompts import needed_task, read_prompts
from sparing.cli.serve import needs_extra
from sparing.errors import OptionError


def serve(
    loading: LoadingFlags,
    out: JsonFlag,
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
) -> None:
    """Throughput of 32 at once, first token beside 8, memory after 1,000, time over the engine."""
    from sparing.evaluate.bench_serve import Serve, bench_serve
    from sparing.evaluate.report import report
    from sparing.model.sources import find_model
    from sparing.tasks.find import find_tasks

    needs_extra()
    task = needed_task(task, prompts, find_model(loading.model))
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
    content = report(loading.model, figures, raw, engine.decoder.dtype)
    show(content)
    out.write(content)


def server_flags(loading: LoadingFlags) -> list[str]:
    """The flags that load the same model."""
    given = {
        "--model": loading.model,
        "--weights": loading.weights,
        "--dtype": loading.dtype,
        "--threads": loading.threads,
        "--decoder": loading.decoder,
        "--predictor": loading.predictor,
    }
    return [
        part for name, value in given.items() if value is not None for part in (name, str(value))
    ]
