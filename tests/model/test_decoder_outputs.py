"""The hidden states and attention maps that a pass returns on request."""

import pytest
import torch

from tests.model.passes import Slots, assert_close, decoder, expected, new, oracle, random_ids
from tests.tiny import reference, tiny

PATHS = {
    "group of 3": tiny("qwen3"),
    "group of 1, biases": tiny("llama", num_key_value_heads=6, attention_bias=True),
}
IDS = [random_ids(30, seed=row) for row in range(3)]


def _inputs(slots, ours):
    """Three rows behind cached slots: a chunk, a single token, and a long one."""
    cached = {0: 13, 1: 29, 2: 5}
    ours([new(IDS[row][:count], row=row) for row, count in cached.items()], slots)
    return [new(IDS[0][13:17], 13, 0), new(IDS[1][29:], 29, 1), new(IDS[2][5:], 5, 2)]


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("layer", [0, 1, 2, 3, -1, -2, -4])
def test_layer_hidden_is_that_of_transformers(path, layer):
    ours = decoder(path)
    slots = Slots(ours, 3)
    inputs = _inputs(slots, ours)
    output = ours(inputs, slots, layer=layer)
    theirs = [
        expected(oracle(path), IDS[i.row], output_hidden_states=True).hidden_states for i in inputs
    ]
    parts = zip(inputs, theirs, strict=True)
    truth = [states[layer][0, i.cached : i.cached + len(i.ids)] for i, states in parts]
    assert_close(output.layer_hidden, torch.cat(truth), 1e-9)
    parts = zip(inputs, theirs, strict=True)
    truth = [states[-1][0, i.cached : i.cached + len(i.ids)] for i, states in parts]
    assert_close(output.hidden, torch.cat(truth), 1e-9)


def test_nothing_is_returned_unasked():
    ours = decoder(PATHS["group of 3"])
    output = ours([new(IDS[0])], Slots(ours))
    assert output.layer_hidden is None
    assert output.attention == []


@pytest.mark.parametrize("layer", [4, -5])
def test_a_layer_that_is_not_there_is_refused(layer):
    ours = decoder(PATHS["group of 3"])
    with pytest.raises(IndexError):
        ours([new(IDS[0])], Slots(ours), layer=layer)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("last", [1, 3, 30])
def test_attention_is_the_mean_of_transformers_maps(path, last):
    ours, theirs = decoder(path, "float32"), reference(path, "float32", "eager")
    slots = Slots(ours, 3)
    inputs = _inputs(slots, ours)
    for i in inputs:
        i.attended = min(last, len(i.ids)) if i.row != 1 else 0
    output = ours(inputs, slots)
    for i, found in zip(inputs, output.attention, strict=True):
        end = i.cached + len(i.ids)
        maps = expected(theirs, IDS[i.row][:end], output_attentions=True).attentions
        truth = torch.stack([layer[0, :, end - i.attended : end] for layer in maps])
        assert_close(found, truth.mean((0, 1)), 1e-5)


def test_attention_maps_of_a_tree_see_ancestors_only():
    ours = decoder(PATHS["group of 3"])
    sees = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 0, 1]], dtype=torch.bool)
    slots = Slots(ours)
    ours([new(IDS[0][:6])], slots)
    tree = new([1, 2, 3], 6, ancestors=sees, attended=3)
    tree.positions = [6, 7, 7]
    (found,) = ours([tree], slots).attention
    assert found.shape == (3, 9)
    assert ((found > 0)[..., 6:] == sees).all()
    assert (found[..., :6] > 0).all()
    assert_close(found.sum(-1), torch.ones(3), 1e-12)
