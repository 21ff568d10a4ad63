"""Tiny checkpoints of architectures that run through transformers."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.tiny import tiny

WINDOW = {"sliding_window": 8}
FEW = {"num_experts": 4, "num_experts_per_tok": 2}
NEEDED: dict[str, dict[str, Any]] = {  # beside tiny.SMALL
    "gemma2": {"head_dim": 16, **WINDOW},
    "gemma3": {"head_dim": 16, **WINDOW},
    "phi3": {"pad_token_id": 0, **WINDOW},
    "granite": {
        "attention_multiplier": 0.3,
        "logits_scaling": 2.0,
        "residual_multiplier": 0.7,
        "embedding_multiplier": 3.0,
    },
    "olmo2": {"pad_token_id": 0},
    "cohere2": {"pad_token_id": 0, "bos_token_id": 1, "logit_scale": 1.0, **WINDOW},
    "gpt_oss": {"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2, **WINDOW},
    "qwen3_moe": {"moe_intermediate_size": 32, **FEW},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "smollm3": {"no_rope_layer_interval": 2, "pad_token_id": 0},
    "llama4": {
        "attention_chunk_size": 8,
        "head_dim": 8,
        "num_local_experts": 2,
        "intermediate_size_mlp": 64,
        "interleave_moe_layer_step": 2,
    },
}
TYPES = {"gemma3": "gemma3_text", "llama4": "llama4_text"}  # model_type, where it is another


def hub(family: str, **more: Any) -> Path:
    """A checkpoint of the family; ``more``: of its config."""
    return tiny(TYPES.get(family, family), **NEEDED[family], **more)


HUB: dict[str, Callable[..., Path]] = {family: partial(hub, family) for family in NEEDED}


def eager(family: str) -> str:
    """The attention of transformers that computes it."""
    return "eager" if family in ("gemma2", "gpt_oss") else "sdpa"
