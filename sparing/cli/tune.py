"""`sparing tune depth`: a layer set for a model and a task."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sparing.cli.fields import flag
from sparing.cli.flags import LoadingFlags
from sparing.cli.progress import Progress
from sparing.cli.run import INTERRUPTED
from sparing.errors import OptionError
from sparing.options import Depth

tune = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Find what suits a model and a task, and keep it.",
)


@tune.callback()
def _group() -> None:
    """Find what suits a model and a task, and keep it."""


def depth(
    loading: LoadingFlags,
    task: Annotated[
        str | None, flag("as of `sparing eval`; by default pocket's for pocket")
    ] = None,
    prompts: Annotated[Path | None, flag("a prompt a line instead, or a .jsonl file")] = None,
    n: Annotated[int, flag("prompts of each task, or of the file", "--n", min=1)] = 2,
    seed: Annotated[int, flag("which problems, and which sets are tried", min=0)] = 0,
    tries: Annotated[int, flag("layer sets that are tried", min=1)] = 400,
    max_draft: Annotated[int, flag("tokens of a draft at most", min=1, max=64)] = 25,
    new_tokens: Annotated[int, flag("of each answer that sets are tried on", min=1)] = 512,
    objective: Annotated[
        str, flag("speed, or matchness at one ratio: the paper's own search")
    ] = "speed",
    name: Annotated[str | None, flag("of the set; by default the task's or the file's")] = None,
    out: Annotated[
        Path | None,
        flag("folder whose layer_sets.json it goes into; by default this machine's cache"),
    ] = None,
) -> None:
    """Find the sub-layers to leave out while drafting.

    `sparing run` uses them from then on, from this machine's cache or from the model's own folder.
    """
    from sparing.cli.output import check_writable
    from sparing.cli.prompts import read_prompts
    from sparing.depth.layer_sets import SETS_FILE, read_file, sets_file, write_sets
    from sparing.model.extras import check_place
    from sparing.model.fingerprint import fingerprint
    from sparing.model.scope import SCOPE_FILE
    from sparing.model.sources import find_model
    from sparing.tasks.families import POCKET_TASKS
    from sparing.tasks.find import find_tasks

    Depth(objective=objective)  # type: ignore[arg-type]  # refused before anything is loaded
    directory = find_model(loading.model)
    if not task and not prompts and (directory / SCOPE_FILE).exists():
        task = POCKET_TASKS
    if bool(task) == bool(prompts):
        raise OptionError("a task or prompts must be given, one of them; pass --task or --prompts")
    if out:
        check_writable(out / SETS_FILE)
    asked = read_prompts(prompts)[:n] if prompts else []
    if task:
        asked = [p.question for t in find_tasks(task) for p in t.problems(n, seed, "validation")]
    from sparing.depth.speed_search import WORTH
    from sparing.evaluate.tune_depth import spoken
    from sparing.evaluate.tune_depth import tune as tuned

    engine = loading.load()
    if not engine.drafting.can_skip:
        raise OptionError(
            "a layer set is of a model of 3 layers or more that can be left out, got another"
        )
    here = fingerprint(directory, engine.chat.tokenizer)
    path = out / SETS_FILE if out else sets_file(here)
    if out:
        check_place(out, here)
    read_file(path, here)  # what is there must be of this model, before the work
    typer.echo(f"the layer set goes into {path}", err=True)
    found: Any = None
    interrupted = False
    with Progress() as progress:
        shown = progress.add_task("answering", total=tries)
        said = spoken(engine, [engine.chat.question(q) for q in asked], new_tokens)

        def on_try(best: Any) -> None:
            nonlocal found
            found = best
            progress.update(shown, advance=1, description="trying layer sets")

        try:
            found = tuned(engine, said, tries, seed, max_draft, on_try, objective)
        except KeyboardInterrupt:
            interrupted = True
    if interrupted:
        kept = "the best so far is kept" if found else "nothing was tried yet"
        typer.echo(f"interrupted; {kept}", err=True)
    if found is None:
        raise typer.Exit(INTERRUPTED)
    named = name or task or prompts.stem  # type: ignore[union-attr]
    write_sets(path, here, {named: found})
    sub_layers = 2 * engine.decoder.shape.layers
    typer.echo(
        f"{named}: {found.layer_set.skipped} of {sub_layers} sub-layers left out, "
        f"{found.matchness:.1%} agreement, {found.speed:.2f} times plain decoding expected\n"
        f"kept in {path}"
    )
    if out and out.resolve() != directory.resolve():
        typer.echo(
            f"`sparing run` reads it beside the model: copy it to {directory.resolve()}", err=True
        )
    if found.speed < WORTH:
        typer.echo("drafting with it is not expected to pay: nothing better was found", err=True)
    if interrupted:
        raise typer.Exit(INTERRUPTED)
