"""Layer sets against the whole model, on a model whose useless sub-layers are known."""

import torch

from sparing.evaluate.agreement import Spoken, agreement, as_layer_set, best_layer_set
from sparing.model.layer_set import LayerSet
from tests.model.passes import decoder
from tests.tiny import tiny

TEXT = Spoken(list(range(40, 80)), 12)


def test_whole_model_agrees_with_itself():
    model = decoder(tiny())
    assert agreement(model, [TEXT], LayerSet.full(3)) == 1.0


def test_counts_the_chosen_tokens_alone():
    model = decoder(tiny())
    nothing = LayerSet.skipping(3, {0, 1, 2}, {0, 1, 2})
    share = agreement(model, [TEXT], nothing)
    assert share * TEXT.chosen == round(share * TEXT.chosen)
    assert share < 1


def test_sub_layers_are_numbered_as_they_run():
    assert as_layer_set({0, 3}, 2) == LayerSet((True, False), (False, True))


def test_search_finds_the_sub_layers_that_do_nothing(monkeypatch):
    """With the last layer and the first MLP planted as no-ops, skipping just them loses nothing."""
    model = decoder(tiny())
    planted = LayerSet.skipping(3, {2}, {0, 2})
    call = type(model).__call__

    def with_no_ops(self, inputs, cache, layer_set=None, **more):
        wanted = layer_set or LayerSet.full(3)
        both = LayerSet(
            tuple(a and b for a, b in zip(wanted.attention, planted.attention, strict=True)),
            tuple(a and b for a, b in zip(wanted.mlp, planted.mlp, strict=True)),
        )
        return call(self, inputs, cache, both, **more)

    monkeypatch.setattr(type(model), "__call__", with_no_ops)
    found = best_layer_set(model, [TEXT], 0.5, tries=60, seed=0)
    assert found.skipped == 3
    assert agreement(model, [TEXT], found) == 1.0
    assert torch.tensor([*found.attention, *found.mlp]).sum() == 3
