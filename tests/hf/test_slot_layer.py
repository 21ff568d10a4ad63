"""``past_key_values`` that evicts: as the engine does, in slots that were allocated once."""

from functools import partial

import pytest
import torch
from transformers import Cache

from sparing.errors import OptionError, PromptTooLong
from sparing.hf import SlotCacheLayer, generate
from tests.hf.test_generating import model

IDS = torch.tensor([[1, 2, 3, 4, 5], [7, 8, 9, 10, 11]])
OPTIONS = {"do_sample": False, "max_new_tokens": 60, "eos_token_id": None, "pad_token_id": 0}


def slots(**options):
    return Cache(layer_class_to_replicate=partial(SlotCacheLayer, **options))


@pytest.mark.parametrize("policy", ["window", "streaming", "random"])
def test_with_room_for_all_nothing_changes(policy):
    expected = model().generate(IDS, **OPTIONS)
    found = model().generate(IDS, past_key_values=slots(budget=64, policy=policy), **OPTIONS)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("budget", [16, 24, 40])
@pytest.mark.parametrize("policy", ["window", "streaming"])
def test_it_keeps_what_the_engine_keeps(policy, budget):
    cache = slots(budget=budget, policy=policy)
    found = model().generate(IDS, past_key_values=cache, **OPTIONS)
    expected = model().generate(
        IDS, custom_generate=generate, budget=budget, policy=policy, **OPTIONS
    )
    assert torch.equal(found, expected)
    assert not torch.equal(found, model().generate(IDS, **OPTIONS))
    assert cache.get_seq_length() == 64
    for layer in cache.layers:
        assert layer.used <= budget
        assert layer.keys.untyped_storage().nbytes() == 2 * 2 * budget * 8 * 8


def test_it_goes_on_and_begins_anew():
    """A second call over the same cache, and one after a reset."""
    cache = slots(budget=20)
    first = model().generate(IDS, past_key_values=cache, **(OPTIONS | {"max_new_tokens": 30}))
    longer = model().generate(first, past_key_values=cache, **(OPTIONS | {"max_new_tokens": 30}))
    whole = model().generate(IDS, past_key_values=slots(budget=20), **OPTIONS)
    assert torch.equal(longer, whole)
    cache.reset()
    again = model().generate(IDS, past_key_values=cache, **OPTIONS)
    assert torch.equal(again, whole)


@pytest.mark.parametrize("policy", ["h2o", "learned", "snapkv"])
def test_a_policy_that_needs_more_is_refused(policy):
    with pytest.raises(OptionError):
        SlotCacheLayer(budget=20, policy=policy)


def test_a_prompt_without_room_is_refused():
    with pytest.raises(PromptTooLong, match="budget must be at least 7") as error:
        model().generate(IDS, past_key_values=slots(budget=4), **OPTIONS)
    assert "\n" not in str(error.value)


def test_beams_are_refused():
    with pytest.raises(OptionError, match="pass num_beams=1"):
        model().generate(IDS, past_key_values=slots(budget=64), **(OPTIONS | {"num_beams": 2}))


@pytest.mark.parametrize(
    "more", [{"selection": 1.0}, {"selection": 30}, {"local": 18, "selection": 1}]
)
def test_a_budget_under_which_nothing_can_go_is_refused(more):
    """Neither an endless search for room nor a slot too many."""
    with pytest.raises(OptionError, match="a pass must fit beside 20 slots in use into 20"):
        model().generate(IDS[:, :1], past_key_values=slots(budget=20, **more), **OPTIONS)


def test_more_tokens_than_ever_fit_are_refused():
    cache = slots(budget=20)
    first = model().generate(IDS, past_key_values=cache, **(OPTIONS | {"max_new_tokens": 4}))
    longer = torch.cat([first, first, first, first], 1)
    with pytest.raises(OptionError, match="into 20; pass a larger budget"):
        model().generate(longer, past_key_values=cache, **OPTIONS)
