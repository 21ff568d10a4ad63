"""A model that says what it is told to: each token of a chain is followed by the next one."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from sparing.api import Engine, load
from tests.tiny import tokenizer

HEAD = 16  # width of a head


def saying(
    directory: Path, pieces: Sequence[str], markers: str | None = "single", **config: Any
) -> Engine:
    """A model that says ``pieces``, each a token of the vocabulary and in it once, then its end.

    A chat begins with the token behind "Ġ", the last one of the template.
    """
    fast = tokenizer(markers)
    words = [piece for piece in pieces if piece not in fast.get_vocab()]
    fast.add_tokens(words)
    ids = [*fast.convert_tokens_to_ids(list(pieces)), fast.eos_token_id]
    follows = dict(pairwise(ids))
    size = len(fast)
    width = -(-size // HEAD) * HEAD
    settings = AutoConfig.for_model(
        "llama",
        vocab_size=size,
        hidden_size=width,
        intermediate_size=HEAD,
        num_hidden_layers=1,
        num_attention_heads=width // HEAD,
        num_key_value_heads=1,
        head_dim=HEAD,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
        **{"max_position_embeddings": 512} | config,
    )
    model = AutoModelForCausalLM.from_config(settings, dtype=torch.float32)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0) if "norm" in name else weight.zero_()
        inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
        for token in range(size):
            inputs.weight[token, token] = 1
            outputs.weight[follows.get(token, fast.eos_token_id), token] = 30 / width**0.5
    model.generation_config = GenerationConfig(eos_token_id=fast.eos_token_id)
    model.save_pretrained(directory)
    fast.save_pretrained(directory)
    return load(directory)
