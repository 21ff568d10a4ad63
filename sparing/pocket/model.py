"""Pocket's model: a deep and narrow Llama, small enough to ship inside the package."""

import json
from pathlib import Path
from typing import Any

from sparing.files import write_atomically
from sparing.model.scope import SCOPE_FILE
from sparing.tasks.families import FAMILIES

LAYERS = 16
MAX_NEW_TOKENS = 2048  # more than any trace needs
NOTICE = (
    "pocket knows four families of questions (see `sparing models`), and this is none of them: "
    "what it answers means nothing"
)
SHAPE = {
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 4096,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
    "tie_word_embeddings": True,
}


def new_model(tokenizer: Any, **shape: Any) -> Any:
    """An untrained model for this tokenizer; ``shape`` overrides fields of its Llama config."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **(SHAPE | shape),
    )
    model = LlamaForCausalLM(config)
    model.generation_config.max_new_tokens = MAX_NEW_TOKENS
    return model


def save_scope(directory: Path) -> None:
    """Write pocket's scope: the patterns of its questions, and the notice for others."""
    content = {"questions": [family.question for family in FAMILIES.values()], "notice": NOTICE}
    write_atomically(directory / SCOPE_FILE, json.dumps(content, indent=1) + "\n")
