"""Models in which some sub-layers do nothing: skipping them changes no token."""

from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from sparing.api import Engine
from sparing.depth.costs import Costs
from sparing.depth.layer_sets import TunedLayerSet
from sparing.depth.matchness import Replay
from sparing.depth.search import LayerSearch
from sparing.model.layer_set import LayerSet
from tests.families import HUB
from tests.tiny import tiny

LAYERS = 6
IDLE_ATTENTION, IDLE_MLP = frozenset({1, 3, 4}), frozenset({2, 3})
IDLE = LayerSet.skipping(LAYERS, set(IDLE_ATTENTION), set(IDLE_MLP))
WRONG = LayerSet.skipping(LAYERS, {2}, {1, 4})  # they all matter: drafts are right now and then
LARGE = Costs(rest=0.1, attention=0.9 / 2 / LAYERS, mlp=0.9 / 2 / LAYERS, token=0.01)


@cache
def planted(family: str = "llama", **options: Any) -> Path:
    """A tiny checkpoint whose sub-layers ``IDLE`` skips have outputs of zero."""
    source = HUB.get(family, partial(tiny, family))(num_hidden_layers=LAYERS, **options)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    for layer in IDLE_ATTENTION:
        silence(model.model.layers[layer].self_attn, "o_proj")
    for layer in IDLE_MLP:
        silence(model.model.layers[layer], "down_proj")
    directory = source.with_name(source.name + "-planted")
    directory.mkdir(exist_ok=True)
    for file in source.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    model.save_pretrained(directory)
    return directory


def knowing(model: Engine, layer_set: LayerSet | None = IDLE, matchness: float = 1.0) -> Engine:
    """The engine, cold but for a layer set (None: that is yet to be found). Where acceptance stays
    within 0.15 of the ``matchness`` it is told, no other is looked for."""
    model.drafting.forget()
    tuned = layer_set and TunedLayerSet(layer_set, matchness, 2.0)
    model.drafting.sets = {"planted": tuned} if tuned else {}
    return model


def find(layer_set: LayerSet, search: LayerSearch, matchness: float = 1.0) -> None:
    """As if it were what the search has found."""
    search.take(TunedLayerSet(layer_set, matchness, 2.0))
    search.phase = "acceleration"


def unhurried(monkeypatch: pytest.MonkeyPatch, costs: Costs = LARGE) -> None:
    """Sets are looked for all the time, at the costs of a model that is large enough: by the clock,
    a planted one has nothing to gain."""
    monkeypatch.setattr("sparing.depth.speed_search.SHARE", 1e9)
    monkeypatch.setattr(Replay, "costs", lambda self, decoder, head: costs)


@torch.no_grad()
def silence(part: torch.nn.Module, name: str) -> None:
    """Zero the output matrices of that name, of all experts, with their biases."""
    found = [weight for full, weight in part.named_parameters() if name in full]
    assert found
    for weight in found:
        weight.zero_()
