"""A checkpoint's end tokens and sampling."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparing.errors import ModelError, OptionError
from sparing.files import read_json
from sparing.model.checkpoint import open_gguf
from sparing.model.gguf_files import is_gguf
from sparing.model.gguf_tokenizer import Vocabulary, gguf_sampling
from sparing.options import Sampling

SAMPLED = ("top_k", "top_p", "min_p")


@dataclass(frozen=True)
class GenerationDefaults:
    """A model's end tokens and default sampling, from ``generation_config.json`` or a GGUF."""

    end_ids: frozenset[int]
    sampling: dict[str, Any] = field(default_factory=dict)


def read_defaults(path: Path, tokenizer: Any) -> GenerationDefaults:
    """End tokens and sampling of a checkpoint; ``generation_config.json`` may be missing."""
    if is_gguf(path):
        gguf, where = open_gguf(path), path
        ends, sampling = Vocabulary.of(gguf).end_ids(), gguf_sampling(gguf)
    else:
        where = path / "generation_config.json"
        generation = read_json(where)
        ends, sampling = end_ids(path, generation, tokenizer), generation_sampling(generation)
    try:
        Sampling(**sampling)
    except OptionError as error:
        raise ModelError(f"in {where} {error}; correct it") from None
    return GenerationDefaults(ends, sampling)


def end_ids(directory: Path, generation: Mapping[str, Any], tokenizer: Any) -> frozenset[int]:
    """Those of ``generation_config.json``, else of ``config.json``, and the tokenizer's own."""
    ends = as_ids(generation.get("eos_token_id"))
    if not ends:
        ends = as_ids(read_json(directory / "config.json").get("eos_token_id"))
    return frozenset(ends | as_ids(tokenizer.eos_token_id))


def generation_sampling(generation: Mapping[str, Any]) -> dict[str, Any]:
    sampling: dict[str, Any] = {}
    if generation.get("do_sample"):
        given = generation.get("temperature")
        sampling["temperature"] = 1.0 if given is None else given
        sampling |= {name: generation[name] for name in SAMPLED if generation.get(name)}
    for name in ("repetition_penalty", "max_new_tokens"):
        if generation.get(name):
            sampling[name] = generation[name]
    return sampling


def as_ids(value: Any) -> set[int]:
    """End tokens from a config file: an id, a list of ids, or null."""
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(token, int) for token in ids):
        raise ModelError(f"eos_token_id must be a token id or a list of them, got {value!r}")
    return set(ids)
