"""The curriculum (LT-Tuning, arXiv 2602.10229): stage after stage, each a resumable run."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from sparing.errors import OptionError
from sparing.latent.config import LatentConfig, load_latents, save_latents
from sparing.latent.files import CONFIG_FILE
from sparing.latent.fusion import LatentVector
from sparing.latent.insertion import with_latents
from sparing.latent.objective import LatentThought
from sparing.latent.settings import StageSettings
from sparing.latent.token import FAR, add_token, aim_row, learn_row
from sparing.latent.token_probabilities import kept_probabilities, unsure_at
from sparing.latent.word_dropping import FILE as WORDS
from sparing.latent.word_dropping import WordDropper, find_values
from sparing.model.checkpoint import layers_and_width
from sparing.model.fingerprint import fingerprint
from sparing.model.sources import find_model
from sparing.train.examples import Corpus
from sparing.train.layer_dropout import LayerDropout
from sparing.train.loop import EVERY, Pace, Report
from sparing.train.objective import Exits
from sparing.train.reason import (
    WEIGHTS,
    check_architecture,
    check_lengths,
    check_out,
    exported,
    load_base,
    train_reason,
)
from sparing.train.settings import SETTINGS_FILE, check_resumed, check_same, keep_settings

Source = Callable[[Any], Corpus]  # from a tokenizer to the plain examples
OnReport = Callable[[Report], None]
GOLD = "gold-*.safetensors"


def train_latent(
    base: str,
    source: Source,
    stages: Sequence[StageSettings],
    out: Path,
    *,
    resume: bool = False,
    on_report: OnReport = lambda report: None,
    pace: Pace = EVERY,
) -> bool:
    """Train ``base`` through ``stages`` into ``out``: a complete model with its ``latent.json``.

    Each stage has a folder in ``out`` until the end, so that a run can be resumed within a stage or
    between two. ``pace`` counts the steps of all stages; returns False if it ends the run before
    its last step. Raises OptionError if ``out`` holds another run.
    """
    check_stages(stages, out, resume)
    process = PartialState(cpu=not torch.cuda.is_available())
    keep_settings(out, run_content(stages), resume, process)
    folders = [out / folder_name(settings) for settings in stages]
    if not exported(out):
        done, previous = 0, find_model(base)
        for settings, folder in zip(stages, folders, strict=True):
            if pace.stop_at and done >= pace.stop_at:
                return False
            if not train_stage(
                previous,
                source,
                settings,
                folder,
                resume=True,
                on_report=counted(on_report, done, folder.name),
                pace=replace(pace, stop_at=max(pace.stop_at - done, 0)),
            ):
                return False
            done, previous = done + settings.steps, folder
        if process.is_main_process:
            promote(previous, out)
    if process.is_main_process:
        for folder in out.glob("stage-*"):
            shutil.rmtree(folder)
    process.wait_for_everyone()
    return True


def train_stage(
    base: Path,
    source: Source,
    settings: StageSettings,
    out: Path,
    *,
    resume: bool = False,
    on_report: OnReport = lambda report: None,
    pace: Pace = EVERY,
) -> bool:
    """Train one stage from the checkpoint ``base`` into ``out``; see ``train_reason``."""
    check_out(out, settings, resume)
    if exported(out):
        return True
    model, tokenizer = load_base(str(base))
    corpus = source(tokenizer)
    how: dict[str, Any] = {"resume": resume, "on_report": on_report, "pace": pace}
    if settings.latents == "none":
        done = train_reason(model, tokenizer, corpus, settings, out, **how)
        PartialState().wait_for_everyone()  # the next stage reads what the first process writes
        return done
    check_lengths(model, corpus)
    known = load_latents(base, tokenizer)
    change = changed_examples(base, model, tokenizer, known, corpus, settings, out)
    config, vector = begin_vector(known, model, tokenizer, settings)
    plain, corpus = corpus, change(config.id)

    def objective(trained: Any, exits: Exits, dropout: LayerDropout) -> LatentThought:
        if settings.lora_rank and settings.targets == "predict":
            learn_row(trained, config.id)
        return LatentThought(
            trained, exits, vector, dropout, settings.words_weight, settings.rounds
        )

    def more(folder: Path) -> None:
        told = config
        if config.switch == "confidence":
            trained, _ = load_base(str(folder))
            tau = unsure_at(trained, plain.validation, corpus.examples, config.id, settings)
            told = config.model_copy(update={"tau": tau, "in_a_row": 1})
        save_latents(vector, told, folder, tokenizer)

    done = train_reason(
        model, tokenizer, corpus, settings, out, objective=objective, more=more, **how
    )
    process = PartialState()
    process.wait_for_everyone()
    if done and process.is_main_process:
        for path in out.glob(GOLD):
            path.unlink()
    return done


def changed_examples(
    base: Path,
    model: Any,
    tokenizer: Any,
    known: tuple[LatentConfig, LatentVector] | None,
    corpus: Corpus,
    settings: StageSettings,
    out: Path,
) -> Callable[[int], Corpus]:
    """A function that adds latents to the examples, given the id of the latent token.

    The model of the stage before scores the examples, so it must still be unchanged.
    """
    named = {"train": corpus.examples, "validation": corpus.validation}
    if settings.drop:

        def shortened(token: int) -> Corpus:
            width = model.get_input_embeddings().embedding_dim
            vector = known[1] if known else LatentVector(settings.recipe(token), width)
            first = find_model(settings.base)
            shorten = WordDropper(settings, first, model, vector, tokenizer, base, out)
            train, validation = shorten(named)
            if not (base / WORDS).exists() and settings.targets == "predict":
                gone = shorten.dropped(corpus.examples)
                aim_row(model, token, corpus.examples, gone, FAR / 2)  # likely, not yet certain
            return Corpus(train, validation, corpus.examples.lengths)

        return shortened
    gold: list[Any] = [None, None]  # not needed for fixed positions
    if settings.positions == "scored":
        of = fingerprint(base, tokenizer)
        gold = [
            kept_probabilities(
                out / GOLD.replace("*", name), model, of, examples, settings, known and known[0].id
            )
            for name, examples in named.items()
        ]

    def change(token: int) -> Corpus:
        if known is None and gold[0] is not None and settings.targets == "predict":
            aim_row(model, token, corpus.examples, gold[0] < settings.tau)
        pairs = zip(named.values(), gold, strict=True)
        train, validation = (with_latents(each, p, token, settings) for each, p in pairs)
        return Corpus(train, validation, corpus.examples.lengths)

    return change


def begin_vector(
    known: tuple[LatentConfig, LatentVector] | None,
    model: Any,
    tokenizer: Any,
    settings: StageSettings,
) -> tuple[LatentConfig, LatentVector]:
    """The config of the new model, and its vector: from the stage before, or a new one."""
    token = known[0].id if known else add_token(model, tokenizer, settings.token)
    recipe = settings.recipe(token).model_dump()
    if known:
        recipe["token"] = known[0].token
    config = LatentConfig(
        **recipe,
        switch="learned" if settings.targets == "predict" else "confidence",
        tau=settings.tau,
        in_a_row=settings.k,
        most=settings.most * settings.k,
        targets=settings.targets,
    )
    torch.manual_seed(settings.seed)
    table = model.get_input_embeddings().weight.detach()
    vector = LatentVector(config, table.shape[1])
    if config.vector == "pause":
        vector.pause.data = table.mean(0)
    if known and known[1].state_dict().keys() == vector.state_dict().keys():
        vector.load_state_dict(known[1].state_dict())
    return config, vector


def check_stages(stages: Sequence[StageSettings], out: Path, resume: bool) -> None:
    """Raise OptionError, before anything loads, if ``out`` holds another run."""
    check_resumed(out, resume)
    check_same(out, run_content(stages))


def check_base(base: str, stages: Sequence[StageSettings]) -> None:
    """Raise ModelError or OptionError, before any weights load, if ``base`` does not fit."""
    directory = find_model(base)
    check_architecture(directory)
    layers, _ = layers_and_width(directory)
    for layer in {settings.layer for settings in stages}:
        if not -layers - 1 <= layer <= layers:
            raise OptionError(
                f"layer must be one of the base's hidden states, {-layers - 1} to {layers}, got "
                f"{layer}"
            )
    plain = any(settings.latents == "none" for settings in stages)
    if plain and (directory / CONFIG_FILE).exists():
        raise OptionError(
            f"base must be without latents for stage 1 and for arm cot, got {base} with its "
            f"{CONFIG_FILE}; pass --stages 2,3, or the model it was trained from"
        )
    if any(settings.drop for settings in stages):
        find_values(directory, stages[-1].predictor)


def run_content(stages: Sequence[StageSettings]) -> dict[str, Any]:
    """All settings of a run in one flat dict, by stage and name."""
    return {
        f"{folder_name(settings)} {name}": value
        for settings in stages
        for name, value in settings.model_dump(mode="json").items()
    }


def folder_name(settings: StageSettings) -> str:
    """A stage's folder in a run: ``stage-2``."""
    return f"stage-{settings.stage}"


def counted(on_report: OnReport, done: int, name: str) -> OnReport:
    """Report a stage's steps as steps of the whole run."""
    return lambda report: on_report(report | {"step": done + report["step"], "stage": name})


def promote(stage: Path, out: Path) -> None:
    """Copy the last stage's files to ``out``, without its settings: ``out`` has those of the run.

    The weights come last: they make the model complete.
    """
    files = [path for path in stage.iterdir() if path.is_file() and path.name != SETTINGS_FILE]
    for path in sorted(files, key=lambda path: path.name in WEIGHTS):
        partial = out / f"{path.name}.partial"
        shutil.copyfile(path, partial)
        os.replace(partial, out / path.name)
