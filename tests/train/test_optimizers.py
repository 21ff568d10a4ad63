"""Which weights go to which optimizer."""

import pytest
import torch
from torch.optim import AdamW, Muon

from sparing.train.optimizers import make_optimizers
from sparing.train.reason import with_lora
from tests.train.small import small_model

MATRICES = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def named(model, optimizer):
    names = {id(weight): name for name, weight in model.named_parameters(remove_duplicate=False)}
    return [[names[id(weight)] for weight in group["params"]] for group in optimizer.param_groups]


def is_matrix(name):
    return bool(MATRICES & set(name.split(".")))


@pytest.mark.parametrize("tied", [True, False])
def test_muon_has_the_matrices_of_the_layers_and_adamw_the_rest(tied):
    model = small_model(tie_word_embeddings=tied)
    muon, adamw = make_optimizers(model, "muon", 1e-3, 0.1)
    assert (type(muon), type(adamw)) == (Muon, AdamW)
    [inner], [outer] = named(model, muon), named(model, adamw)
    assert len(inner) == 2 * len(MATRICES)
    assert all(map(is_matrix, inner))
    assert not any(map(is_matrix, outer))
    assert len(outer) == 2 * 2 + 1 + (1 if tied else 2)  # norms, embedding, head
    assert muon.param_groups[0]["weight_decay"] == 0.1
    assert adamw.param_groups[0]["weight_decay"] == 0


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("tied", [True, False])
def test_every_weight_once(kind, tied):
    model = small_model(tie_word_embeddings=tied)
    held = [
        id(weight)
        for optimizer in make_optimizers(model, kind, 1e-3, 0.1)
        for group in optimizer.param_groups
        for weight in group["params"]
    ]
    assert len(held) == len(set(held))
    assert set(held) == {id(weight) for weight in model.parameters()}


def test_adamw_decays_matrices_alone():
    model = small_model()
    [optimizer] = make_optimizers(model, "adamw", 1e-3, 0.1)
    for group, names in zip(optimizer.param_groups, named(model, optimizer), strict=True):
        decayed = group["weight_decay"] > 0
        assert names
        assert all(is_matrix(name) == decayed for name in names)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_frozen_weights_are_left_out(kind):
    model = with_lora(small_model(), rank=2, seed=0)
    held = [
        name
        for optimizer in make_optimizers(model, kind, 1e-3, 0)
        for names in named(model, optimizer)
        for name in names
    ]
    assert len(held) == 2 * 2 * len(MATRICES)
    assert all("lora_" in name for name in held)


def test_an_all_zero_gradient_moves_no_undecayed_weight():
    model = small_model()
    before = model.model.embed_tokens.weight.detach().clone()
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    for optimizer in make_optimizers(model, "muon", 1e-2, 0.1):
        optimizer.step()
    assert torch.equal(model.model.embed_tokens.weight, before)
