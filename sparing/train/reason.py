"""Stage 1 (LT-Tuning, arXiv 2602.10229): supervised fine-tuning on question, thinking, answer."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from sparing.errors import ModelError, OptionError, reason
from sparing.files import read_json
from sparing.model.checkpoint import read_config, read_model, read_tokenizer
from sparing.model.config import FAMILIES
from sparing.model.gguf_files import is_gguf
from sparing.model.markers import mark_thoughts
from sparing.model.sources import INDEX, find_model
from sparing.train import checkpoint
from sparing.train.examples import Corpus
from sparing.train.loop import EVERY, Objective, Pace, Report, Trainer, plain
from sparing.train.settings import (
    EXAMPLES,
    SETTINGS_FILE,
    TrainSettings,
    check_resumed,
    check_same,
    keep_settings,
)

LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
WEIGHTS = ("model.safetensors", INDEX)  # one of them is written last and marks a complete export


def train_reason(
    model: Any,
    tokenizer: Any,
    corpus: Corpus,
    settings: TrainSettings,
    out: Path,
    *,
    resume: bool = False,
    on_report: Callable[[Report], None] = lambda report: None,
    pace: Pace = EVERY,
    objective: Objective = plain,
    more: Callable[[Path], None] = lambda folder: None,
) -> bool:
    """Train ``model`` into ``out``: weights and tokenizer in Hugging Face format, training.json.

    Returns False, without an export, if ``pace`` ends the run before its last step.

    ``resume``: continue from the newest checkpoint in ``out``
    ``objective``: see ``Trainer``
    ``more``: see ``export``

    Raises OptionError if ``out`` holds another run, or a run with other settings.
    """
    check_lengths(model, corpus)
    process = begin(out, settings, corpus, resume)
    if not exported(out):
        trained = with_lora(model, settings.lora_rank, settings.seed)
        trainer = Trainer(trained, corpus, settings, out, on_report, objective)
        if trainer.run(pace) < settings.steps:
            return False
        if process.is_main_process:
            export(merged(trained), tokenizer, out, more)
    if process.is_main_process:
        checkpoint.clear(out)
    return True


def check_lengths(model: Any, corpus: Corpus) -> None:
    """Raise OptionError if an example is longer than the model's context."""
    longest, context = int(corpus.examples.lengths.max()), model.config.max_position_embeddings
    if longest > context:
        raise OptionError(
            f"examples must fit max_position_embeddings of the base ({context} tokens), "
            f"the longest has {longest}; remove the longer ones"
        )


def check_out(out: Path, settings: TrainSettings, resume: bool) -> None:
    """Raise OptionError, before anything loads, if this run cannot use ``out``."""
    check_resumed(out, resume)
    check_same(out, settings.model_dump(mode="json"))
    if not (out / SETTINGS_FILE).exists() and (exported(out) or checkpoint.steps(out)):
        raise OptionError(
            f"--out must be new, {out} holds a model or checkpoints and no {SETTINGS_FILE}; "
            "give another directory"
        )


def begin(out: Path, settings: TrainSettings, corpus: Corpus, resume: bool) -> PartialState:
    """Prepare ``out`` for this run; returns the process's place among all processes.

    Raises OptionError if ``out`` was begun with other settings or other examples.
    """
    check_out(out, settings, resume)
    process = PartialState(cpu=not torch.cuda.is_available())
    content = settings.model_dump(mode="json") | {EXAMPLES: corpus.examples.fingerprint()}
    keep_settings(out, content, resume, process)
    return process


def exported(out: Path) -> bool:
    """Whether ``out`` holds a complete model: the weights are written last."""
    return any((out / name).exists() for name in WEIGHTS)


def load_base(name: str) -> tuple[Any, Any]:
    """Load model and tokenizer by a name for `find_model`, in float32 for training.

    Training teaches the model to think between markers, so the template gets a note of them.
    Raises ModelError if model or tokenizer are missing, broken, or do not fit each other.
    """
    path = find_model(name)
    check_architecture(path)
    try:
        tokenizer, model = read_tokenizer(path), read_model(path, torch.float32)
    except ModelError:
        raise
    except Exception as error:  # every loader has its own types
        raise ModelError(f"{name} must be a readable checkpoint, got: {reason(error)}") from error
    check_tokenizer(model, tokenizer, name)
    mark_thoughts(tokenizer)
    return model, tokenizer


def check_architecture(path: Path) -> None:
    """Raise ModelError, with the field's name, for a config that cannot be trained here."""
    family = None if is_gguf(path) else read_json(path / "config.json").get("model_type")
    if not is_gguf(path) and family not in FAMILIES:
        raise ModelError(
            f"config field model_type must be one of {', '.join(FAMILIES)} for training, "
            f"got {family!r}; choose another base"
        )
    if packing := read_config(path).quantization:
        raise ModelError(
            f"a base must have float weights for training, got {packing.method} weights in {path}; "
            "take the checkpoint it was made of"
        )


def check_tokenizer(model: Any, tokenizer: Any, name: str) -> None:
    """Raise ModelError for a tokenizer larger than the embedding, without template or end token."""
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise ModelError(
            f"the tokenizer must fit the model, {name} has vocab_size {rows} and a tokenizer of "
            f"{len(tokenizer)} tokens; give the directory of both"
        )
    if tokenizer.chat_template is None:
        raise ModelError(
            f"{name} must have a chat template for training, got none; set the tokenizer's "
            "chat_template"
        )
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{name} must have an end token, got none; set the tokenizer's eos_token")


def with_lora(model: Any, rank: int, seed: int) -> Any:
    """The model itself, or for ``rank`` > 0 its frozen weights with LoRA adapters (peft)."""
    if not rank:
        return model
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=LORA_TARGETS, bias="none")
    return inject_adapter_in_model(config, model)


def merged(model: Any) -> Any:
    """The model with its LoRA adapters, if any, added to its weights."""
    from peft.tuners.lora import LoraLayer

    adapted = [(name, m) for name, m in model.named_modules() if isinstance(m, LoraLayer)]
    for name, layer in adapted:
        layer.merge()
        model.set_submodule(name, layer.get_base_layer())
    return model


def export(
    model: Any, tokenizer: Any, out: Path, more: Callable[[Path], None] = lambda folder: None
) -> None:
    """Save weights and tokenizer in Hugging Face format, the weights last: they mark it complete.

    ``more`` writes further files to a folder, before any file appears in ``out``.
    """
    partial = out / "export.partial"
    shutil.rmtree(partial, ignore_errors=True)
    tokenizer.save_pretrained(partial)
    model.save_pretrained(partial)
    more(partial)
    for path in sorted(partial.iterdir(), key=lambda path: path.name in WEIGHTS):
        path.chmod(0o644)  # safetensors writes files that only the owner can read
        os.replace(path, out / path.name)
    partial.rmdir()
