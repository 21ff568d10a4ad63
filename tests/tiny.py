"""Tiny random checkpoints with a byte-level tokenizer, and the comparison that exactness needs.

The weights are scaled so that greedy outputs vary: every residual update outweighs the embedding.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jaxtyping
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

from sparing.api import Engine, load

END = "<|endoftext|>"  # the name that the Qwen2 tokenizer class adds unless it is there
TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
# A template that knows the markers while the vocabulary does not: they take several tokens.
NAMES_MARKERS = "{# </think> #}" + TEMPLATE
SMALL = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}


def tokenizer(markers: str | None = "single") -> PreTrainedTokenizerFast:
    """One token a byte, an end token, and think markers: ``single`` tokens with a text of their
    own, ``special`` ones without, ``several`` tokens each, or None."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(END, special=True)])
    if markers == "single":
        backend.add_tokens([AddedToken("<think>"), AddedToken("</think>")])
    if markers == "special":
        backend.add_special_tokens(
            [AddedToken("<think>", special=True), AddedToken("</think>", special=True)]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=END, clean_up_tokenization_spaces=False
    )
    fast.chat_template = NAMES_MARKERS if markers == "several" else TEMPLATE
    return fast


NARROW = {  # over SMALL: for what trains
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def checkpoint(
    directory: Path,
    family: str = "llama",
    *,
    markers: str | None = "single",
    seed: int = 0,
    gain: float = 1.5,
    generation: dict[str, Any] | None = None,
    **config: Any,
) -> Path:
    """Write a random checkpoint of a family, float32, with its tokenizer; returns ``directory``.

    ``config`` overrides ``SMALL``; ``generation`` is what ``generation_config.json`` says.
    """
    fast = tokenizer(markers)
    settings = AutoConfig.for_model(
        family,
        **SMALL
        | {"vocab_size": len(fast), "bos_token_id": None, "eos_token_id": fast.eos_token_id}
        | ({"sliding_window": None} if family == "mistral" else {})
        | config,
    )
    model = AutoModelForCausalLM.from_config(settings, dtype=torch.float32)
    randomize(model, seed, gain)
    if generation is not None:
        model.generation_config = GenerationConfig(**generation)
    model.save_pretrained(directory)
    fast.save_pretrained(directory)
    return directory


@torch.no_grad()
def randomize(model: torch.nn.Module, seed: int, gain: float) -> None:
    """Normal weights: matrices ``gain / sqrt(columns)``, embeddings 0.3, norms around 1."""
    noise = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        values = torch.randn(weight.shape, generator=noise)
        if "embed" in name or "lm_head" in name:
            weight.copy_(0.3 * values)
        elif weight.ndim == 2:
            weight.copy_(gain * values / weight.shape[1] ** 0.5)
        else:
            weight.copy_(0.2 * values + (1.0 if "norm" in name else 0.0))


def tiny(family: str = "llama", **options: Any) -> Path:
    """As ``checkpoint``, written once a process."""
    return _tiny(family, json.dumps(options, sort_keys=True))


@cache
def _tiny(family: str, options: str) -> Path:
    return checkpoint(_folder() / f"{family}-{abs(hash(options))}", family, **json.loads(options))


@cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="sparing-tests-")
    _folder.keep = folder  # type: ignore[attr-defined]  # gone when the process ends
    return Path(folder.name)


@cache
def engine(path: Path, dtype: str = "float64") -> Engine:
    """The checkpoint loaded by Sparing."""
    return load(str(path), dtype=dtype)


@cache
def reference(path: Path, dtype: str = "float64", attention: str = "sdpa") -> Any:
    """The checkpoint loaded by transformers; it generates on behind end tokens."""
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=getattr(torch, dtype), attn_implementation=attention
    )
    if dtype == "float64" and model._can_set_experts_implementation():
        model.set_experts_implementation("eager")  # grouped products have no float64
    model.generation_config.eos_token_id = None
    return model.eval()


@contextmanager
def unchecked() -> Iterator[None]:
    """Without shape checks, three times as fast: for tests that repeat what others have checked."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


@torch.inference_mode()
def reference_tokens(model: Any, prompt: Sequence[int], count: int, **more: Any) -> list[int]:
    """What transformers generates greedily."""
    ids = torch.tensor([list(prompt)])
    options = GenerationConfig(do_sample=False, max_new_tokens=count, **more)
    found = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=options)
    return found[0, len(prompt) :].tolist()


def next_logits(model: Any, prompt: Sequence[int]) -> Callable[[Sequence[int]], Tensor]:
    """The logits that a transformers model gives after the prompt and some output."""

    @torch.inference_mode()
    def logits(output: Sequence[int]) -> Tensor:
        return model(torch.tensor([[*prompt, *output]])).logits[0, -1]

    return logits


def assert_same_tokens(
    ours: Sequence[int],
    expected: Sequence[int],
    logits: Callable[[Sequence[int]], Tensor],
    gap: float = 1e-4,
) -> None:
    """Equal, or parted at a tie: the reference's two best are these two tokens, within ``gap``."""
    at = next(
        (i for i, pair in enumerate(zip(ours, expected, strict=False)) if len(set(pair)) > 1), None
    )
    if at is None:
        assert len(ours) == len(expected)
        return
    best = logits(expected[:at]).topk(2)
    assert {ours[at], expected[at]} == set(best.indices.tolist()), (at, ours[at], expected[at])
    assert best.values[0] - best.values[1] < gap, (at, best)
