"""Layer dropout against a forward that leaves the dropped sub-layers out."""

import pytest
import torch

from sparing.train.layer_dropout import LayerDropout
from tests.train.small import small_model

LAYERS, ROWS = 4, 6


def ids():
    return torch.randint(0, 40, (ROWS, 11), generator=torch.Generator().manual_seed(3))


def deep():
    return small_model(num_hidden_layers=LAYERS)


def naive(model, row, keep):
    """One row through the sub-layers that are kept: [T] and [2 L] give [T, V]."""
    body = model.model
    states = body.embed_tokens(row[None])
    rotary = body.rotary_emb(states, position_ids=torch.arange(len(row))[None])
    for at, layer in enumerate(body.layers):
        if keep[2 * at]:
            normed = layer.input_layernorm(states)
            mixed, _ = layer.self_attn(normed, position_embeddings=rotary, attention_mask=None)
            states = states + mixed
        if keep[2 * at + 1]:
            states = states + layer.mlp(layer.post_attention_layernorm(states))
    return model.lm_head(body.norm(states))[0]


@pytest.mark.parametrize("seed", range(4))
def test_each_row_omits_what_was_drawn_for_it(seed):
    model, plain = deep(), deep()
    dropout = LayerDropout(model, 0.9)
    dropout.draw(ROWS, seed, 5)
    logits = model(input_ids=ids(), use_cache=False).logits
    for row in range(ROWS):
        keep = dropout.keep[:, row]
        torch.testing.assert_close(
            logits[row], naive(plain, ids()[row], keep), atol=1e-5, rtol=1e-4
        )
    assert len({tuple(keep) for keep in dropout.keep.T.tolist()}) > 1  # rows differ


def test_what_is_dropped_learns_nothing():
    model = deep()
    dropout = LayerDropout(model, 0.5)
    dropout.keep = torch.ones(2 * LAYERS, ROWS)
    dropout.keep[2 * 2] = 0  # the third layer's attention
    model(input_ids=ids(), use_cache=False).logits.square().sum().backward()
    third = model.model.layers[2]
    assert not any(weight.grad.any() for weight in third.self_attn.parameters())
    assert all(weight.grad.any() for weight in third.mlp.parameters())


@pytest.mark.parametrize("rate", [0.0, 0.7])
def test_without_a_rate_or_turned_off_nothing_changes(rate):
    model = deep()
    expected = model(input_ids=ids(), use_cache=False).logits
    dropout = LayerDropout(model, rate)
    assert torch.equal(model(input_ids=ids(), use_cache=False).logits, expected)
    dropout.draw(ROWS, 1)
    drawn = model(input_ids=ids(), use_cache=False).logits
    assert torch.equal(drawn, expected) == (rate == 0)
    dropout.off()
    assert torch.equal(model(input_ids=ids(), use_cache=False).logits, expected)


def test_rates_grow_from_none_at_the_first_layer_to_the_given_one_at_the_last():
    dropout = LayerDropout(deep(), 0.4)
    expected = [0.4 * (2 ** (layer / 3) - 1) for layer in range(LAYERS)]  # LayerSkip's curve
    assert dropout.rates == pytest.approx(expected)
    assert dropout.rates[0] == 0
    assert dropout.rates[-1] == pytest.approx(0.4)
    dropout.draw(20_000, 7)
    assert dropout.keep[:2].all()
    dropped = 1 - dropout.keep.mean(1).view(LAYERS, 2)
    torch.testing.assert_close(
        dropped, torch.tensor(expected)[:, None].expand(LAYERS, 2), atol=0.015, rtol=0
    )


def test_the_seed_alone_decides():
    first, second = LayerDropout(deep(), 0.6), LayerDropout(deep(), 0.6)
    draws = []
    for dropout, seed in ((first, (1, 2)), (second, (1, 2)), (first, (1, 3)), (first, (2, 2))):
        dropout.draw(50, *seed)
        draws.append(dropout.keep.clone())
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[3])


def test_a_single_layer_always_runs():
    dropout = LayerDropout(small_model(num_hidden_layers=1), 0.9)
    dropout.draw(100, 0)
    assert dropout.keep.all()
