"""Fusion by hand on three tokens; both nucleus conventions; what gradients flow through."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparing.latent.fusion import LatentVector, Rows, Table, mixture, nucleus
from sparing.latent.vector_config import Recipe
from sparing.model.matrix import PlainMatrix

LATENT = 3
# Three words with probabilities 0.6, 0.3 and 0.1, and a latent token that is likelier than all.
LOGITS = torch.tensor([[math.log(0.6), math.log(0.3), math.log(0.1), 5.0]], dtype=torch.float64)
WORDS = torch.tensor([[1.0, 0.0], [0.0, 2.0], [4.0, 4.0], [9.0, 9.0]], dtype=torch.float64)
HIDDEN = torch.tensor([[10.0, -20.0]], dtype=torch.float64)


def vector(**changed):
    torch.manual_seed(0)
    return LatentVector(Recipe(id=LATENT, **changed), 2).double()


def fused(**changed):
    return vector(**changed)(HIDDEN, LOGITS, Table(WORDS))[0].tolist()


def test_by_hand():
    """Top-p 0.8 keeps 0.6 and 0.3, two thirds and one third: e = (2/3, 2/3)."""
    expected = [0.6 * 10 + 0.4 * 2 / 3, 0.6 * -20 + 0.4 * 2 / 3]
    assert fused() == pytest.approx(expected, abs=1e-12)


def test_the_reference_drops_the_word_that_crosses():
    """0.6 alone: e is the first word's embedding."""
    assert fused(nucleus="reference") == pytest.approx([0.6 * 10 + 0.4, 0.6 * -20], abs=1e-12)


def test_temperature():
    """At T = 2 square roots count: 0.7746, 0.5477, 0.3162 of 1.6385; 0.8 needs the first two."""
    q = [math.sqrt(p) for p in (0.6, 0.3)]
    e = [q[0] / sum(q), 2 * q[1] / sum(q)]
    expected = [0.6 * h + 0.4 * w for h, w in zip((10, -20), e, strict=True)]
    assert fused(temperature=2.0) == pytest.approx(expected, abs=1e-12)


def test_alpha_one_is_the_hidden_state_and_alpha_zero_the_words():
    assert fused(alpha=1.0) == HIDDEN[0].tolist() == fused(vector="hidden")
    assert fused(alpha=0.0) == pytest.approx([2 / 3, 2 / 3], abs=1e-12)
    assert fused(alpha=0.0, top_p=1.0) == pytest.approx([0.6 + 0.4, 0.6 + 0.4], abs=1e-12)


def test_pause_is_learned_and_nothing_else():
    learned = vector(vector="pause")
    learned.pause.data = torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert learned(HIDDEN, LOGITS, Table(WORDS)).tolist() == [[3.0, 4.0]]
    assert [name for name, _ in learned.named_parameters()] == ["pause"]


def test_the_adapter_takes_the_place_of_the_hidden_state():
    learned = vector(adapter=5)
    assert {name: tuple(p.shape) for name, p in learned.named_parameters()} == {
        "down.weight": (5, 2),
        "up.weight": (2, 5),
    }
    adapted = torch.nn.functional.gelu(HIDDEN @ learned.down.weight.T) @ learned.up.weight.T
    ours = learned(HIDDEN, LOGITS, Table(WORDS))
    assert torch.allclose(ours, 0.6 * adapted + 0.4 * torch.full((1, 2), 2 / 3).double())


def test_matched_norms():
    """The hidden state is as long as an embedding is in the mean, whatever it was."""
    mean = (1 + 2 + math.hypot(4, 4) + math.hypot(9, 9)) / 4
    assert fused(alpha=1.0, match_norms=True) == pytest.approx(
        [10 * mean / math.hypot(10, 20), -20 * mean / math.hypot(10, 20)]
    )


@pytest.mark.parametrize("convention", ["standard", "reference"])
def test_gradients_reach_hidden_state_logits_and_embeddings(convention):
    """To finite differences, but not through the choice of the nucleus."""
    inputs = [HIDDEN.clone(), LOGITS.clone(), WORDS.clone()]
    for value in inputs:
        value.requires_grad_()
    model = vector(nucleus=convention, top_p=0.95)
    assert torch.autograd.gradcheck(lambda h, logits, e: model(h, logits, Table(e)), inputs)
    model(*inputs[:2], Table(inputs[2])).square().sum().backward()
    hidden, logits, words = (value.grad for value in inputs)
    assert bool(hidden.abs().min() > 0)
    kept = 3 if convention == "standard" else 2
    assert [bool(row.abs().max() > 0) for row in words] == [at < kept for at in range(4)]
    assert [abs(float(g)) > 1e-9 for g in logits[0]] == [at < kept for at in range(4)]


@given(
    weights=st.lists(st.integers(1, 50), min_size=1, max_size=12),
    top_p=st.floats(0.01, 1.0),
)
def test_nucleus_against_a_loop(weights, top_p):
    p = torch.tensor([weights], dtype=torch.float64) / sum(weights)
    order = sorted(range(len(weights)), key=lambda at: (-weights[at], at))
    total, standard, reference = 0.0, set(), set(order[:1])
    for at in order:
        if total < top_p:
            standard.add(at)
        total += float(p[0, at])
        if total <= top_p:
            reference.add(at)
    near = any(abs(float(c) - top_p) < 1e-9 for c in p[0, order].cumsum(0))
    for convention, expected in (("standard", standard), ("reference", reference)):
        found = set(nucleus(p, top_p, convention)[0].nonzero()[:, 0].tolist())
        assert found == expected or near


def test_a_decoder_s_rows_mix_as_the_table_does():
    noise = torch.Generator().manual_seed(0)
    weight = torch.randn(9, 4, generator=noise, dtype=torch.float64)
    q = mixture(torch.randn(3, 9, generator=noise).double(), Recipe(id=2, top_p=0.6))
    assert q[:, 2].tolist() == [0, 0, 0]
    rows = Rows(PlainMatrix(weight), 9)
    assert torch.allclose(rows.mix(q), Table(weight).mix(q), atol=1e-12)
    assert torch.allclose(rows.norm(), Table(weight).norm(), atol=1e-12)
