"""Skipping a sub-layer is a transformers model in which that sub-layer says nothing."""

from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

from sparing.model.layer_set import LayerSet
from tests.model.passes import Slots, assert_close, decoder, new, oracle, random_ids
from tests.tiny import tiny

PATHS = {"qwen3": tiny("qwen3"), "llama": tiny("llama", attention_bias=True, mlp_bias=True)}
IDS = random_ids(24)
some_layers = st.sets(st.integers(0, 2))


@contextmanager
def silenced(model, attention, mlp):
    """Zeroes what these sub-layers add to the residual stream."""
    layers = model.model.layers
    hooks = [
        layers[i].self_attn.register_forward_hook(lambda _, __, out: (0 * out[0], *out[1:]))
        for i in attention
    ]
    hooks += [layers[i].mlp.register_forward_hook(lambda _, __, out: 0 * out) for i in mlp]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_skipping_equals_silenced_sub_layers(path):
    ours, theirs = decoder(path), oracle(path)

    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(some_layers, some_layers)
    @torch.inference_mode()
    def check(attention, mlp):
        past, slots = DynamicCache(), Slots(ours, 3)
        theirs(torch.tensor([IDS[:15]]), past_key_values=past)
        ours([new(IDS[:15], row=1)], slots)
        with silenced(theirs, attention, mlp):
            truth = theirs(
                torch.tensor([IDS[15:]]), past_key_values=past, output_hidden_states=True
            )
        output = ours(
            [new([7, 8], row=0), new(IDS[15:], 15, row=1)],
            slots,
            LayerSet.skipping(3, attention, mlp),
            layer=2,
        )
        assert_close(output.logits[2:], truth.logits[0], 1e-9)
        assert_close(output.layer_hidden[2:], truth.hidden_states[2][0], 1e-9)

    check()


@settings(max_examples=10, deadline=None, derandomize=True)
@given(some_layers, some_layers)
def test_a_skipped_attention_layer_writes_no_keys(attention, mlp):
    ours = decoder(PATHS["qwen3"])
    slots = Slots(ours, 2)
    before = slots.copy()
    ours([new([5, 6, 7], 4, row=1)], slots, LayerSet.skipping(3, attention, mlp))
    for layer in range(3):
        changed = (slots.kv[layer] != before.kv[layer]).any(dim=(2, 4))
        wrote = torch.zeros(2, 2, 64, dtype=torch.bool)
        wrote[:, 1, 4:7] = layer not in attention
        assert torch.equal(changed, wrote)


def test_the_full_set_is_no_set():
    ours = decoder(PATHS["qwen3"])
    inputs = [new(IDS)]
    plain = ours(inputs, Slots(ours)).logits
    assert torch.equal(ours(inputs, Slots(ours), LayerSet.full(3)).logits, plain)


def test_everything_skipped_is_the_embedding():
    ours = decoder(PATHS["qwen3"])
    nothing = LayerSet.skipping(3, {0, 1, 2}, {0, 1, 2})
    inputs = [new(IDS)]
    found = ours(inputs, Slots(ours), nothing, layer=-2).layer_hidden
    assert torch.equal(found, ours._embed(inputs))


def test_attention_maps_are_those_of_the_layers_that_ran():
    ours = decoder(PATHS["qwen3"])
    """Their mean over the layers that ran, so that a layer's own map is a difference of two."""
    inputs = [new(IDS, attended=len(IDS))]
    first, two, three = (
        ours(inputs, Slots(ours), LayerSet.skipping(3, layers, {0, 1})).attention[0]
        for layers in ({1, 2}, {2}, set())
    )
    maps = [first, 2 * two - first, 3 * three - 2 * two]
    for layer in maps:
        assert (layer > -1e-9).all()
        torch.testing.assert_close(layer.sum(-1), torch.ones_like(layer[:, 0]))
    assert not torch.allclose(maps[0], maps[1])


def test_counting_what_is_skipped():
    assert LayerSet.full(4).skipped == 0
    assert LayerSet.skipping(4, {1, 2}, {3}).skipped == 3
    assert LayerSet.skipping(4, {1}, {3}) == LayerSet(
        (True, False, True, True), (True, True, True, False)
    )


@pytest.mark.parametrize(("attention", "mlp"), [({3}, set()), (set(), {-1}), ({0, 7}, {1})])
def test_layers_that_are_not_there_are_refused(attention, mlp):
    with pytest.raises(ValueError, match=r"layers must lie in 0\.\.2, got \[-?\d\]"):
        LayerSet.skipping(3, attention, mlp)


def test_unequal_sides_are_refused():
    with pytest.raises(
        ValueError, match="one attention and one MLP sub-layer a layer, got 2 and 3"
    ):
        LayerSet((True, True), (True, True, True))


@pytest.mark.parametrize("layers", [2, 4])
def test_a_set_for_another_number_of_layers_is_refused(layers):
    ours = decoder(PATHS["qwen3"])
    with pytest.raises(AssertionError):
        ours([new(IDS)], Slots(ours), LayerSet.full(layers))
