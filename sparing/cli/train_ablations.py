"""`sparing train ablations`: the method and what it is compared with, at equal gradient steps."""

from functools import cache
from pathlib import Path
from typing import Annotated, Any

from sparing.cli.fields import flag, numbers
from sparing.cli.flags import quiet_transformers
from sparing.cli.train import POCKET, PaceFlags, TrainingBar, finish_pocket
from sparing.cli.train_latent import LengthFlags, Questions, StageFlags
from sparing.errors import OptionError
from sparing.model.sources import find_here


def ablations(
    staging: StageFlags,
    lengths: LengthFlags,
    pacing: PaceFlags,
    out: Annotated[Path, flag("directory for all trainings")],
    base: Annotated[str, flag("what all begin with")] = "pocket",
    arms: Annotated[str | None, flag("which, with commas; by default all")] = None,
    seed: Annotated[
        int | None, flag("the first of three seeds (0); some arms take it alone", min=0)
    ] = None,
    seeds: Annotated[str | None, flag("all of them instead, with commas")] = None,
    only_seeds: Annotated[
        str | None, flag("those to train now: two processes can share the others out")
    ] = None,
) -> None:
    """Train the latent method and what it is compared with.

    The arms: cot, latent, no-stage-2, no-stage-3, pause, ignore, words-for-latents.

    Stages that arms share are trained once, and what is there is not trained again.
    """
    from sparing.latent.arms import ARMS, find_arm

    trained = [name for name, arm in ARMS.items() if arm.model is None]
    named = [name.strip() for name in arms.split(",")] if arms else trained
    for name in named:
        find_arm(name)
    if staging["targets"] != "predict":
        raise OptionError(
            "ablations have an arm whose latents are no targets, got --targets "
            f"{staging['targets']} for all of them; leave it out"
        )
    if seeds and seed is not None:
        raise OptionError("--seed or --seeds must be given, got both; leave one out")
    first = seed or 0
    every = numbers("seeds", seeds, int) if seeds else [first, first + 1, first + 2]
    now = numbers("only-seeds", only_seeds, int) if only_seeds else every
    if wrong := [seed for seed in now if seed not in every]:
        raise OptionError(f"--only-seeds must be among the seeds {every}, got {wrong[0]}")
    find_here(base)
    import torch

    from sparing.latent.ablations import Ablations, check_ablations, train_ablations
    from sparing.latent.train import check_base

    if pacing.threads:
        torch.set_num_threads(pacing.threads)
    quiet_transformers()
    common = {**staging, "base": base}
    wanted = Ablations(base, common, lengths.each(), every, out)
    check_ablations(wanted, pacing.resume)
    todo = list(wanted.todo(named, now))
    check_base(base, [settings for _, settings, _, _ in todo])

    @cache
    def source(seed: int) -> Any:
        return Questions(staging["task"], seed, staging["share"])

    source(now[0])  # refuses an unknown task first
    with TrainingBar(sum(settings.steps for _, settings, _, _ in todo), out) as shown:
        done = train_ablations(
            wanted,
            named,
            now,
            source,
            resume=pacing.resume,
            on_report=shown.report,
            pace=pacing.pace(),
        )
    if done and staging["task"] == POCKET:
        for seed in now:
            ends = {wanted.folders(arm, seed)[-1] for arm in named if seed in wanted.seeds_of(arm)}
            for folder in ends:
                finish(folder, source(seed), base)
    shown.end(done, pacing.stop_at)


def finish(folder: Path, questions: Any, base: str) -> None:
    """As `sparing train latent` leaves a model, so that it can be moved out and used."""
    from transformers import AutoTokenizer

    from sparing.tasks.splits import QUESTIONS_FILE

    if (folder / QUESTIONS_FILE).exists():
        return
    if questions.asked is None:  # it was trained by an earlier run
        questions(AutoTokenizer.from_pretrained(folder))
    finish_pocket(folder, questions.asked, base)
