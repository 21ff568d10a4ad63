"""`sparing bench latent`: the arms of `sparing train ablations` compared; it trains nothing."""

from pathlib import Path
from typing import Annotated

from sparing.cli.fields import flag, takes_flags
from sparing.cli.flags import quiet_transformers
from sparing.cli.output import PlotFlag, RowsFlag, kept_rows, show, show_cells
from sparing.cli.progress import Progress
from sparing.cli.workers import several

BASE = "base"  # the arm of --model: as a rule what all arms began with


@takes_flags
def latent(
    from_: Annotated[Path, flag("the --out of `sparing train ablations`", "--from")],
    out: RowsFlag,
    picture: PlotFlag,
    arms: Annotated[str | None, flag("which, with commas; by default all that are there")] = None,
    model: Annotated[
        str | None, flag("a model beside them as the arm `base`, its latents off")
    ] = None,
    task: Annotated[str, flag("as of `sparing eval`, several with commas")] = "pocket-hard",
    n: Annotated[int, flag("problems of each task", "--n", min=1)] = 200,
    seed: Annotated[int, flag("which problems", min=0)] = 0,
    split: Annotated[str, flag("test or validation")] = "test",
    max_new_tokens: Annotated[int, flag("new tokens at most", min=1)] = 1400,
    batch_size: Annotated[int, flag("problems at a time, in each process", min=1)] = 64,
    dtype: Annotated[str, flag("float32, bfloat16 or float16")] = "float32",
    threads: Annotated[int | None, flag("threads of torch", min=1)] = None,
    workers: Annotated[
        int, flag("processes for the problems, each with its part of the threads", min=1)
    ] = 1,
) -> None:
    """Accuracy of each arm with paired intervals against cot, its tokens, steps and seconds."""
    import torch

    from sparing.evaluate.bench_latent import bench_latent, latent_cells
    from sparing.evaluate.bench_latent_rows import LatentExperiment
    from sparing.evaluate.plots_latent import draw_latent
    from sparing.evaluate.report import report
    from sparing.latent.ablations import Trained, read_trained
    from sparing.model.sources import find_model
    from sparing.tasks.find import find_tasks

    named = [name.strip() for name in arms.split(",")] if arms else None
    models, tasks = read_trained(from_, named), find_tasks(task)
    if model:
        models.insert(0, Trained(BASE, models[0].seed, find_model(model), "off"))
    experiment = LatentExperiment(models, tasks, n, seed, split, max_new_tokens, batch_size, dtype)
    part = out.part(experiment.fingerprint(experiment.model_files))
    if threads:
        torch.set_num_threads(threads)
    quiet_transformers()
    with kept_rows(part), several(workers, quiet_transformers, experiment.run) as runner:
        figures, raw = bench_latent(experiment, part, Progress(), runner)
    raw = {"workers": workers, **raw}
    content = report(model or str(from_), figures, raw, getattr(torch, dtype))
    show_cells(latent_cells(content, list(dict.fromkeys(model.arm for model in models))))
    show(content, [row for row in content["rows"] if is_verdict(row["name"])])
    out.finish(content, part)
    picture.draw(draw_latent, content)


def is_verdict(name: str) -> bool:
    """Whether a figure compares arms beyond the table's columns."""
    beside_cot = name.startswith("paired_vs_") and not name.startswith("paired_vs_cot")
    return beside_cot or name.startswith(("paired_low", "text_saved"))
