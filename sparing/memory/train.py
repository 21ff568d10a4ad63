"""From a frozen model to its predictor: sample, measure, fit, evaluate, save."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from sparing.errors import OptionError
from sparing.files import read_json
from sparing.memory.files import CONFIG_FILE, has_predictor
from sparing.memory.fit import Fit, evaluate
from sparing.memory.predictor import save_predictor
from sparing.memory.settings import FitSettings, TraceSettings
from sparing.memory.traces import MakeShards, TraceSet, TraceSource, collect, collect_elsewhere
from sparing.train import checkpoint
from sparing.train.loop import EVERY, Pace, Report
from sparing.train.settings import SETTINGS_FILE, difference, keep_settings

SCALE = "log1p(I / mean over the trace of I at the first horizon)"


def traces_content(settings: TraceSettings, fingerprint: str) -> dict[str, Any]:
    """The settings that a folder of traces depends on; ``fingerprint``: of the model."""
    return settings.model_dump(mode="json") | {"fingerprint": fingerprint}


def check_traces(folder: Path, content: dict[str, Any]) -> None:
    """Raise OptionError unless the folder holds the traces of an earlier run with these settings,
    ``traces_content``."""
    if not (folder / SETTINGS_FILE).exists():
        raise OptionError(
            f"--traces must hold those of an earlier run, got none in {folder}; check the path, "
            "or leave it out to sample some"
        )
    if found := difference(folder, content):
        raise OptionError(
            f"--traces must be of this model and these settings, {folder} {found}; "
            "repeat that setting, or leave --traces out to sample some"
        )


def sample_traces(
    asked: TraceSource,
    settings: TraceSettings,
    fingerprint: str,
    folder: Path,
    *,
    resume: bool = False,
    earlier: bool = False,
    on_shard: Callable[[int], None] = lambda done: None,
    elsewhere: MakeShards | None = None,
) -> TraceSet:
    """The traces of ``asked`` in ``folder``; missing ones are sampled now.

    ``earlier``: the folder is of an earlier run
    ``elsewhere``: samples shards; by default this process does, and those beside it

    Raises OptionError where the folder belongs to other settings or another model, or where too few
    traces were accepted to train on some and hold others out; unless ``earlier`` they are removed.
    """
    process = PartialState(cpu=not torch.cuda.is_available())
    keep_settings(folder, traces_content(settings, fingerprint), resume or earlier, process)
    if elsewhere:
        collect_elsewhere(elsewhere, asked.shards, folder, on_shard)
    else:
        collect(asked, folder, process.process_index, process.num_processes, on_shard)
    process.wait_for_everyone()
    traces = TraceSet(folder, asked.shards)
    if not traces.train or not traces.held_out:
        process.wait_for_everyone()  # all have read them
        if process.is_main_process and not earlier:
            shutil.rmtree(folder)
        raise OptionError(
            f"a predictor needs accepted traces to train on and to hold out, got "
            f"{len(traces.train)} and {len(traces.held_out)} of {traces.sampled} questions; "
            "pass a larger --n, an easier --task, or --accept any"
        )
    return traces


def train_predictor(
    traces: TraceSet,
    settings: FitSettings,
    about: dict[str, Any],
    out: Path,
    *,
    resume: bool = False,
    on_report: Callable[[Report], None] = lambda report: None,
    pace: Pace = EVERY,
) -> dict[str, Any] | None:
    """Fit a predictor into ``out``; returns its quality on held-out traces, None if stopped early.

    ``about``: facts of model and traces for the saved config, the fingerprint among them.
    """
    process = PartialState(cpu=not torch.cuda.is_available())
    keep_settings(out, settings.model_dump(mode="json") | about, resume, process)
    if not has_predictor(out):
        fit = Fit(traces, settings, out, on_report)
        if fit.run(pace) < fit.steps:
            return None
        config = {
            "width": fit.predictor.maps[0].in_features,
            "horizons": list(fit.predictor.horizons),
            "scale": SCALE,
            **about,
            "fit": settings.model_dump(mode="json"),
            "memory": settings.model_dump(include={"local", "selection"}, exclude_none=True),
            "held_out": evaluate(fit.predictor, traces, settings),
        }
        if process.is_main_process:
            save_predictor(fit.predictor, config, out)
    if process.is_main_process:
        checkpoint.clear(out)
    process.wait_for_everyone()
    return dict(read_json(out / CONFIG_FILE)["held_out"])
