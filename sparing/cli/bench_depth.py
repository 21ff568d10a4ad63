"""`sparing bench depth`: drafters on groups of prompts."""

from pathlib import Path
from typing import Annotated, get_args

from sparing.cli.fields import flag
from sparing.cli.flags import LoadingFlags
from sparing.cli.output import JsonFlag, PlotFlag, show
from sparing.cli.progress import Progress
from sparing.cli.prompts import needed_task, read_groups
from sparing.errors import OptionError
from sparing.options import Depth, DraftName

LAYERED = frozenset({"layers", "hybrid", "auto"})


def depth(
    loading: LoadingFlags,
    out: JsonFlag,
    picture: PlotFlag,
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
    rounds: Annotated[int, flag("of each prompt, all arms in turns", min=1)] = 3,
    trees: Annotated[bool, flag("verify likely siblings too", "--trees")] = False,
    confidence: Annotated[float, flag("of the drafting layers, below which a draft ends")] = 0.8,
) -> None:
    """Speed over plain decoding and over transformers, drafter by drafter; a cold start."""
    from sparing.evaluate.baselines.transformers import in_memory
    from sparing.evaluate.bench_depth import Drafting, bench_depth
    from sparing.evaluate.plots_depth import draw_timeline
    from sparing.evaluate.report import report
    from sparing.model.sources import find_model

    options = Depth(trees=trees, confidence=confidence)
    chosen = chosen_drafters(drafters)
    if picture.plot and "layers" not in chosen:
        raise OptionError(f"a timeline is of drafter layers, got {drafters}; leave --plot out")
    directory = find_model(loading.model)
    task = needed_task(task, prompts, directory)
    found = groups(task, prompts, n, seed)
    engine = loading.load()
    if not engine.drafting.can_skip and set(chosen) & LAYERED:
        raise OptionError(
            "drafters layers, hybrid and auto need a model of 3 layers or more that can be left "
            "out; pass --drafters lookup"
        )
    other = in_memory(directory, engine.decoder.dtype)
    asked = {name: [engine.chat.question(q) for q in some[: 2 * n]] for name, some in found.items()}
    drafting = Drafting(
        groups={name: some[:n] for name, some in asked.items()},
        warm_up=[prompt for some in asked.values() for prompt in some[n:]],
        drafters=chosen,
        new_tokens=new_tokens or (128 if prompts else 1400),
        whole=new_tokens is None and not prompts,
        rounds=rounds,
        depth=options,
    )
    with Progress() as progress:
        figures, raw = bench_depth(engine, other, drafting, progress)
    content = report(loading.model, figures, raw, engine.decoder.dtype)
    show(content)
    out.write(content)
    picture.draw(draw_timeline, raw.get("cold_layers"))


def groups(task: str | None, prompts: Path | None, n: int, seed: int) -> dict[str, list[str]]:
    """Twice ``n`` questions of each task, as the second half warms up; and the prompts."""
    from sparing.tasks.find import find_tasks

    tasks = find_tasks(task) if task else []
    found = {t.name: [p.question for p in t.problems(2 * n, seed)] for t in tasks}
    return found | (read_groups(prompts) if prompts else {})


def chosen_drafters(given: str) -> list[str]:
    """Raises OptionError for an unknown name."""
    names = list(dict.fromkeys(name.strip() for name in given.split(",")))
    known = [name for name in get_args(DraftName) if name != "off"]
    if wrong := [name for name in names if name not in known]:
        raise OptionError(f"drafters must be among {', '.join(known)}, got {wrong[0]!r}")
    return names
