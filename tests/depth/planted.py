"""Models in which some sub-layers do nothing: skipping them changes no token."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from sparing.model.layer_set import LayerSet
from tests.tiny import tiny

LAYERS = 6
IDLE_ATTENTION, IDLE_MLP = frozenset({1, 3, 4}), frozenset({2, 3})
IDLE = LayerSet.skipping(LAYERS, set(IDLE_ATTENTION), set(IDLE_MLP))


@cache
def planted(family: str = "llama", **options: Any) -> Path:
    """A tiny checkpoint whose sub-layers ``IDLE`` skips have outputs of zero."""
    source = tiny(family, num_hidden_layers=LAYERS, **options)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    for layer in IDLE_ATTENTION:
        silence(model.model.layers[layer].self_attn.o_proj)
    for layer in IDLE_MLP:
        silence(model.model.layers[layer].mlp.down_proj)
    directory = source.with_name(source.name + "-planted")
    directory.mkdir(exist_ok=True)
    for file in source.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    model.save_pretrained(directory)
    return directory


@torch.no_grad()
def silence(linear: torch.nn.Linear) -> None:
    linear.weight.zero_()
    if linear.bias is not None:
        linear.bias.zero_()
