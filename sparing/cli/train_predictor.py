"""`sparing train predictor`: what a model's thoughts were worth to it, learnt from its traces."""

import json
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from sparing.cli.fields import Flags, flag
from sparing.cli.flags import ModelFlags
from sparing.cli.train import TrainingBar, rounded
from sparing.cli.workers import RayFlag, anywhere, on_ray
from sparing.errors import OptionError
from sparing.memory.settings import FitSettings, TraceSettings
from sparing.options import Latent, LatentMode

INSIDE = "traces"  # the folder within --out


TraceFlags = Annotated[
    dict[str, Any], Flags(of=TraceSettings, without=["model", "dtype"])
]  # the other two are those of loading
FitFlags = Annotated[
    dict[str, Any],
    Flags(of=FitSettings, without=["seed"], renamed={"temperature": "kendall_temperature"}),
]


def predictor(
    loading: ModelFlags,
    sampling: TraceFlags,
    fitting: FitFlags,
    out: Annotated[Path, flag("directory for the predictor, its checkpoints and its traces")],
    cluster: RayFlag,
    traces: Annotated[Path | None, flag("traces of an earlier run, to fit them anew")] = None,
    resume: Annotated[bool, flag("go on with what --out holds", "--resume")] = False,
    save_every: Annotated[int, flag("steps between checkpoints", min=1)] = 200,
    batch_size: Annotated[int, flag("questions at a time", min=1)] = 32,
    stop_at: Annotated[int, flag("end at this step, to be resumed; 0: never", min=0)] = 0,
) -> None:
    """Learn what to remember from sampled traces.

    It samples traces, measures how much later tokens attend to each token, fits and evaluates.
    """
    from sparing.tasks.find import find_tasks
    from sparing.train.settings import check_resumed, check_same

    check_alone(cluster, traces)
    wanted = TraceSettings(model=loading.model, dtype=loading.dtype, **sampling)
    fit = FitSettings(seed=wanted.seed, **fitting)
    folder = traces or out / INSIDE
    check_resumed(out, resume)
    check_resumed(folder, resume or traces is not None)
    tasks = find_tasks(wanted.task)
    problems = find_problems(tasks, wanted)
    from sparing.latent.files import check_latent
    from sparing.memory.train import (
        check_traces,
        sample_traces,
        traces_content,
        train_predictor,
    )
    from sparing.model.extras import check_place
    from sparing.model.fingerprint import fingerprint
    from sparing.model.sources import find_model
    from sparing.train.loop import Pace

    if traces:
        check_traces(traces, {})
    check_latent(loading.model, Latent(mode=wanted.latent or "off"))
    engine = loading.load()
    if fit.target == "answer" and engine.chat.markers is None:
        raise OptionError(
            f"target answer needs a model that marks its thoughts, and {loading.model} does not; "
            "use future-max or future-mean"
        )
    found = fingerprint(find_model(loading.model), engine.chat.tokenizer)
    about = {"model": wanted.model, "fingerprint": found, "traces": wanted.model_dump(mode="json")}
    content = traces_content(wanted, found)
    check_place(out, found)
    if traces:
        check_traces(traces, content)
    else:
        check_same(folder, content)
    check_same(out, fit.model_dump(mode="json") | about)
    how = tasks, problems, wanted, batch_size
    asked = questions(engine, *how)
    with TrainingBar(asked.shards, out) as shown:
        sampled = sample_traces(
            asked,
            wanted,
            found,
            folder,
            resume=resume,
            earlier=traces is not None,
            on_shard=lambda done: shown.at(done, "sampling traces"),
            elsewhere=shards_by(cluster, loading, how),
        )
        kept, count = len(sampled.traces), sampled.sampled
        shown.say(f"{kept} of {count} traces accepted, {sampled.tokens:,} thinking tokens")
    with TrainingBar(fit.epochs * -(-len(sampled.train) // fit.batch), out) as shown:
        pace = Pace(save_every, stop_at=stop_at)
        result = train_predictor(
            sampled, fit, about, out, resume=resume, on_report=shown.report, pace=pace
        )
        done = f"{out} is done: {json.dumps(rounded(result))}"
        shown.say(done if result else f"stopped at {stop_at}; --resume goes on")


def find_problems(tasks: Sequence[Any], settings: TraceSettings) -> list[Any]:
    """The problems of all tasks.

    Raises OptionError with the least --n if they cannot be split; nothing has been loaded yet.
    """
    from sparing.tasks.held_out import can_be_split, is_held_out, least

    def draw(n: int) -> list[Any]:
        return [p for task in tasks for p in task.problems(n, settings.seed, "traces")]

    found = draw(settings.n)
    if can_be_split(found):
        return found
    enough = least(draw, settings.n)
    kept = sum(is_held_out(p.id) for p in found)
    raise OptionError(
        "--n must give questions to train on and, every tenth, to hold out, got "
        f"{len(found) - kept} and {kept} with --n {settings.n}; "
        + (f"pass --n {enough}" if enough else "pass a larger --task")
    )


def shards_by(cluster: RayFlag, loading: Any, how: Sequence[Any]) -> Any:
    """Makes shards on the cluster, by their indices; None where there is none.

    ``how``: the other arguments of ``questions``
    """
    address = cluster.ray
    if address is None:
        return None
    load = partial(asked_there, anywhere(loading), how)

    def make(indices: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        from sparing.evaluate.experiment import Job

        if indices:
            with on_ray(address, loading, load, sampled_there) as runner:
                for _, index, content in runner([Job(None, [index]) for index in indices]):
                    yield index, content

    return make


def check_alone(cluster: RayFlag, traces: Path | None) -> None:
    """Refuse a cluster where nothing is sampled, or where each of several processes would use
    it."""
    if cluster.ray is None:
        return
    if traces:
        raise OptionError("--ray samples traces, got some with --traces; leave one of them out")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise OptionError(
            "--ray must be given to one process, got several of torch.distributed.run; "
            "sample with --ray first, then fit in several with --resume"
        )


def asked_there(loading: Any, how: Sequence[Any]) -> Any:
    """``questions`` of an engine that is loaded where this is called."""
    return questions(loading.load(), *how)


def sampled_there(asked: Any, job: Any) -> Iterator[Any]:
    """The shards of a job."""
    return ((job.arm, index, asked.shard(index)) for index in job.places)


def questions(
    engine: Any,
    tasks: Sequence[Any],
    problems: Sequence[Any],
    settings: TraceSettings,
    batch_size: int,
) -> Any:
    """The problems, answered by ``engine`` and accepted as ``settings`` say."""
    from sparing.evaluate.batch_generate import Settings, answers
    from sparing.latent.switch import LearnedSwitch, find_switch
    from sparing.memory.traces import TraceSource
    from sparing.options import Depth, Sampling

    by_name = {task.name: task for task in tasks}
    given = {
        name: getattr(settings, name)
        for name in ("max_new_tokens", "temperature")
        if getattr(settings, name) is not None
    }
    as_trained: LatentMode = engine.latents[0].switch if engine.latents else "off"
    latent = Latent(mode=settings.latent or as_trained)
    switch = find_switch(latent, engine.latents, engine.decoder, engine.chat.tokenizer)
    how = Settings(
        depth=Depth(draft="off"),
        latent=latent,
        sampling=Sampling(**given),
        batch_size=batch_size,
        sample_seed=settings.seed,
    )

    def sample(some: Sequence[Any]) -> list[Any]:
        found = sorted(answers(engine, some, how), key=lambda answered: answered.index)
        return [answered.result for answered in found]

    def accept(problem: Any, result: Any) -> bool:
        return settings.accept == "any" or by_name[problem.task].grade(problem, result.answer)

    thinks = switch.thinker if isinstance(switch, LearnedSwitch) else None
    marked = engine.chat.markers is not None
    return TraceSource(problems, sample, accept, engine.decoder, settings.horizons, thinks, marked)
