"""Which weights go to which optimizer."""

import pytest
import torch
from torch import nn
from torch.optim import AdamW, Muon

from sparing.train.optimizers import FullMuon, make_optimizers, orthogonal
from sparing.train.reason import with_lora
from sparing.train.settings import TrainSettings
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
    assert (type(muon), type(adamw)) == (FullMuon, AdamW)
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


@pytest.mark.parametrize("shape", [(24, 24), (40, 16), (16, 40)])
def test_muon_steps_as_torchs_but_for_its_bfloat16(shape):
    torch.manual_seed(0)
    begun = torch.randn(shape)
    ours, theirs = (nn.Parameter(begun.clone()) for _ in range(2))
    optimizers = (
        FullMuon([ours], lr=0.1, weight_decay=0.2),
        Muon([theirs], lr=0.1, weight_decay=0.2, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(3):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert (ours - theirs).abs().max() < 0.05 * (theirs - begun).abs().max()


def test_singular_values_come_near_one():
    torch.manual_seed(0)
    defaults = FullMuon([nn.Parameter(torch.zeros(2, 2))]).defaults
    matrix = torch.randn(12, 30)
    found = orthogonal(matrix, defaults["ns_coefficients"], defaults["ns_steps"], defaults["eps"])
    assert found.dtype == torch.float32
    assert all(0.6 < value < 1.3 for value in torch.linalg.svdvals(found))
    assert (found * matrix).sum() > 0


@pytest.mark.parametrize(
    ("capability", "cuda", "precision"),
    [("AVX2", False, "float32"), ("AVX512", False, "bfloat16"), ("AVX2", True, "bfloat16")],
)
def test_products_in_what_the_machine_is_fast_at(monkeypatch, capability, cuda, precision):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert TrainSettings().precision == precision
    assert TrainSettings(precision="bfloat16").precision == "bfloat16"
