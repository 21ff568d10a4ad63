"""Stage 1 (spec/latent.md): supervised fine-tuning on question, thinking, answer."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from sparing.errors import ModelError, OptionError, reason
from sparing.files import read_json
from sparing.model.chat import mark_thoughts
from sparing.model.checkpoint import read_config, read_model, read_tokenizer
from sparing.model.config import FAMILIES
from sparing.model.gguf_files import is_gguf
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
WEIGHTS = ("model.safetensors", INDEX)  # either is written last, and makes an export whole


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

    ``resume`` goes on from the newest checkpoint in ``out``. False is returned where ``pace`` ends
    the run before its last step: then nothing is exported. ``objective``: as of the Trainer;
    ``more``: as of ``export``.

    Raises OptionError where ``out`` holds another run, or the settings differ from those it has.
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
    """Refuse examples that are longer than what the model's positions reach."""
    longest, context = int(corpus.examples.lengths.max()), model.config.max_position_embeddings
    if longest > context:
        raise OptionError(
            f"examples must fit max_position_embeddings of the base ({context} tokens), "
            f"the longest has {longest}; remove those that are longer"
        )


def check_out(out: Path, settings: TrainSettings, resume: bool) -> None:
    """Refuse, before anything is loaded, an ``out`` that this run cannot go into."""
    check_resumed(out, resume)
    check_same(out, settings.model_dump(mode="json"))
    if not (out / SETTINGS_FILE).exists() and (exported(out) or checkpoint.steps(out)):
        raise OptionError(
            f"--out must be new, {out} holds a model or checkpoints and no {SETTINGS_FILE}; "
            "give another directory"
        )


def begin(out: Path, settings: TrainSettings, corpus: Corpus, resume: bool) -> PartialState:
    """Make ``out`` ready for this run; the examples too must be those that it was begun with.

    Returns which of how many processes this is.
    """
    check_out(out, settings, resume)
    process = PartialState(cpu=not torch.cuda.is_available())
    content = settings.model_dump(mode="json") | {EXAMPLES: corpus.examples.fingerprint()}
    keep_settings(out, content, resume, process)
    return process


def exported(out: Path) -> bool:
    """Whether ``out`` holds a model: its weights come last."""
    return any((out / name).exists() for name in WEIGHTS)


def load_base(name: str) -> tuple[Any, Any]:
    """Model and tokenizer of anything that `find_model` finds, in float32 to be trained.

    Whatever is trained here learns to think between markers: the template says so from now on.
    Raises ModelError where they are missing, broken, or do not belong together.
    """
    path = find_model(name)
    check_architecture(path)
    try:
        tokenizer, model = read_tokenizer(path), read_model(path, torch.float32)
    except ModelError:
        raise
    except Exception as error:  # every loader below has errors of its own
        raise ModelError(f"{name} must be a readable checkpoint, got: {reason(error)}") from error
    check_tokenizer(model, tokenizer, name)
    mark_thoughts(tokenizer)
    return model, tokenizer


def check_architecture(path: Path) -> None:
    """Refuse, naming the field, a config that attention, dropout and engine do not know."""
    family = None if is_gguf(path) else read_json(path / "config.json").get("model_type")
    if not is_gguf(path) and family not in FAMILIES:
        raise ModelError(
            f"config field model_type must be one of {', '.join(FAMILIES)} to be trained, "
            f"got {family!r}; choose another base"
        )
    read_config(path)


def check_tokenizer(model: Any, tokenizer: Any, name: str) -> None:
    """Refuse a tokenizer that can write ids the model has no embedding for, or no chat."""
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise ModelError(
            f"the tokenizer must fit the model, {name} has vocab_size {rows} and a tokenizer of "
            f"{len(tokenizer)} tokens; give the directory that both were saved to"
        )
    if tokenizer.chat_template is None:
        raise ModelError(f"{name} must have a chat template to be trained on, its field is empty")
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{name} must have an end token, its tokenizer's eos_token is empty")


def with_lora(model: Any, rank: int, seed: int) -> Any:
    """The model itself, or where ``rank`` > 0 its frozen weights with LoRA adapters (peft)."""
    if not rank:
        return model
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=LORA_TARGETS, bias="none")
    return inject_adapter_in_model(config, model)


def merged(model: Any) -> Any:
    """A model whose LoRA adapters, if it has any, are added into its weights."""
    from peft.tuners.lora import LoraLayer

    adapted = [(name, m) for name, m in model.named_modules() if isinstance(m, LoraLayer)]
    for name, layer in adapted:
        layer.merge()
        model.set_submodule(name, layer.get_base_layer())
    return model


def export(
    model: Any, tokenizer: Any, out: Path, more: Callable[[Path], None] = lambda folder: None
) -> None:
    """Save weights and tokenizer in Hugging Face format; the weights, which make it whole, last.

    ``more`` puts further files beside them, before any of them is seen in ``out``."""
    partial = out / "export.partial"
    shutil.rmtree(partial, ignore_errors=True)
    tokenizer.save_pretrained(partial)
    model.save_pretrained(partial)
    more(partial)
    for path in sorted(partial.iterdir(), key=lambda path: path.name in WEIGHTS):
        path.chmod(0o644)  # safetensors lets nobody else read what it writes
        os.replace(path, out / path.name)
    partial.rmdir()
