"""`sparing bench depth`: drafters on groups of prompts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, get_args

import typer

from sparing.cli.bench import check_writable, read_groups, show
from sparing.cli.flags import LoadingFlags, flag
from sparing.cli.progress import Progress
from sparing.cli.run import INTERRUPTED
from sparing.errors import OptionError
from sparing.evaluate.report import report, write_json
from sparing.options import Depth, DraftName

LAYERED = frozenset({"layers", "hybrid", "auto"})


def depth(
    loading: LoadingFlags,
    task: Annotated[
        str | None, flag("groups of problems, as of `sparing eval`; by default pocket's for pocket")
    ] = None,
    prompts: Annotated[
        Path | None, flag("a prompt a line, or .jsonl with a category in each: a group")
    ] = None,
    n: Annotated[int, flag("prompts of each group", "--n", min=1)] = 8,
    seed: Annotated[int, flag("which problems", min=0)] = 0,
    drafters: Annotated[str, flag("which to compare, with commas")] = "lookup,layers,hybrid,auto",
    new_tokens: Annotated[
        int | None, flag("tokens a prompt; problems by default to their end", min=1)
    ] = None,
    rounds: Annotated[int, flag("each prompt so many times, in turns", min=1)] = 3,
    trees: Annotated[bool, flag("verify likely siblings too", "--trees")] = False,
    confidence: Annotated[float, flag("of the drafting layers, below which a draft ends")] = 0.8,
    json_: Annotated[Path | None, flag("write the figures to this file", "--json")] = None,
    plot: Annotated[Path | None, flag("draw the cold start's timeline into this file")] = None,
) -> None:
    """Speed over plain decoding and over transformers, drafter by drafter; a cold start."""
    from sparing.evaluate.bench_depth import BARS, Drafting, bench_depth
    from sparing.evaluate.plots import check_picture
    from sparing.evaluate.plots_depth import draw_timeline
    from sparing.model.reference import ReferenceDecoder
    from sparing.model.scope import SCOPE_FILE
    from sparing.model.sources import find_model
    from sparing.tasks.families import POCKET_TASKS
    from sparing.tasks.find import find_tasks

    for path in filter(None, (json_, plot)):
        check_writable(path)
    if plot:
        check_picture(plot)
    options = Depth(trees=trees, confidence=confidence)
    chosen = chosen_drafters(drafters)
    if plot and "layers" not in chosen:
        raise OptionError(f"a timeline is of drafter layers, got {drafters}; leave --plot out")
    directory = find_model(loading.model)
    if not task and not prompts:
        if not (directory / SCOPE_FILE).exists():
            raise OptionError("a task or prompts must be given, got neither; pass --prompts FILE")
        task = POCKET_TASKS
    found: dict[str, Sequence[str]] = {}
    if task:  # twice as many: the others warm up
        found = {t.name: [p.question for p in t.problems(2 * n, seed)] for t in find_tasks(task)}
    if prompts:
        found |= read_groups(prompts)
    engine = loading.load()
    if not engine.drafting.can_skip and set(chosen) & LAYERED:
        raise OptionError(
            "drafters layers, hybrid and auto need Sparing's own decoder and a model of 3 layers "
            "or more; pass --drafters lookup"
        )
    other = ReferenceDecoder.load(directory, engine.decoder.dtype).model
    asked = {name: [engine.chat.question(q) for q in some[: 2 * n]] for name, some in found.items()}
    drafting = Drafting(
        groups={name: some[:n] for name, some in asked.items()},
        warm_up=[prompt for some in asked.values() for prompt in some[n:]],
        drafters=chosen,
        new_tokens=new_tokens or (128 if prompts else 1400),
        whole=new_tokens is None and not prompts,
        rounds=rounds,
        depth=options,
        bars=BARS.get((loading.model, task), {}),
    )
    try:
        with Progress() as progress:
            figures, raw = bench_depth(engine, other, drafting, progress)
    except KeyboardInterrupt:
        typer.echo("interrupted; nothing is kept", err=True)
        raise typer.Exit(INTERRUPTED) from None
    content = report(figures, raw, engine.decoder.dtype)
    show(content)
    if json_:
        write_json(json_, content)
    if plot:
        draw_timeline(raw["cold_layers"], plot)


def chosen_drafters(given: str) -> list[str]:
    """Raises OptionError for one that is none."""
    names = list(dict.fromkeys(name.strip() for name in given.split(",")))
    known = [name for name in get_args(DraftName) if name != "off"]
    if wrong := [name for name in names if name not in known]:
        raise OptionError(f"drafters must be among {', '.join(known)}, got {wrong[0]!r}")
    return names
