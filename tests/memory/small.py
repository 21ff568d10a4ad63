"""Predictors of random weights, and made-up traces in shards."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor
from transformers import AutoTokenizer

from sparing.api import Engine
from sparing.files import write_atomically
from sparing.memory.predictor import ImportancePredictor, save_predictor
from sparing.memory.targets import Importance
from sparing.memory.traces import TraceSet, packed, shard_path
from sparing.model.fingerprint import fingerprint
from tests.tiny import checkpoint, engine, tokenizer

HORIZONS = (2, 7)


@torch.no_grad()
def random_predictor(
    width: int,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    horizons: Sequence[int] = HORIZONS,
) -> ImportancePredictor:
    """Its weights are large enough for scores to differ from token to token."""
    noise = torch.Generator().manual_seed(seed)
    predictor = ImportancePredictor(width, horizons)
    for weight in predictor.parameters():
        weight.copy_(2 * torch.randn(weight.shape, generator=noise) / weight.shape[1] ** 0.5)
    predictor.maps[-1].weight.abs_()  # a softplus is flat where what goes in is negative
    return predictor.to(dtype).eval().requires_grad_(False)


def predicting(
    path: Path, dtype: str = "float64", seed: int = 0, horizons: Sequence[int] = HORIZONS
) -> Engine:
    """The checkpoint loaded by Sparing, with a random predictor."""
    bare = engine(path, dtype)
    predictor = random_predictor(bare.decoder.shape.width, seed, bare.decoder.dtype, horizons)
    return Engine(bare.decoder, bare.chat, bare.name, predictor)


THINKS = (
    "{% for m in messages %}{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %} <think>{% endif %}"
)


def thinker(directory: Path, **config: Any) -> Path:
    """A checkpoint that opens a thought, and closes it at times: a row of its head is loud."""
    checkpoint(directory, **config)
    (directory / "chat_template.jinja").write_text(THINKS)
    weights = load_file(directory / "model.safetensors")
    weights["lm_head.weight"][tokenizer().convert_tokens_to_ids("</think>")] *= 2.5
    save_file(weights, directory / "model.safetensors", {"format": "pt"})
    return directory


def vocabulary_of(model: Path) -> Any:
    return AutoTokenizer.from_pretrained(model)


def write_predictor(out: Path, model: Path, seed: int = 0, **changed: Any) -> ImportancePredictor:
    """A random predictor for the checkpoint ``model`` in ``out``, its config ``changed``."""
    width = json.loads((model / "config.json").read_text())["hidden_size"]
    predictor = random_predictor(width, seed)
    config = {
        "width": width,
        "horizons": list(predictor.horizons),
        "memory": {},
        "fingerprint": fingerprint(model, vocabulary_of(model)),
    }
    save_predictor(predictor, config | changed, out)
    return predictor


def made_up(hidden: Tensor, raw: Tensor) -> Importance:
    """A trace with the same target ``[T, K]`` under every name; the answer's has one column."""
    return Importance(hidden, raw[:, :1], raw, raw)


def write_traces(folder: Path, traces: Iterable[Importance], answer: int = 8) -> TraceSet:
    """The traces of questions 1, 2 ... in a shard, each with an ``answer`` of so many tokens."""
    measured = list(traces)
    named = [["task", id_, len(m.hidden) + answer] for id_, m in enumerate(measured, 1)]
    told = {"sampled": len(measured), "traces": named, "horizons": list(HORIZONS)}
    content = save(packed(measured), {"told": json.dumps(told)})
    write_atomically(shard_path(folder, 0), content)
    return TraceSet(folder, 1)
