"""Everything on a device beside the CPU: the same tokens, and one wait a pass."""

from collections import Counter
from functools import cache
from typing import Any

import pytest

import sparing
from sparing.api import Engine
from sparing.options import Depth, Latent, Memory, Sampling
from tests.elsewhere import Elsewhere, counting, device
from tests.families import HUB
from tests.tiny import tiny

PROMPTS: list[Any] = [[1, 2, 3, 4], list(range(20, 35)), [5, 6, 7, 8, 9, 10]]
GREEDY = Sampling(max_new_tokens=24, temperature=0.0, ignore_eos=True)
SAMPLED = GREEDY.model_copy(update={"temperature": 0.8, "seed": 3})
DRAFTS = Depth(draft="lookup")
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"sampling": GREEDY},
    "sampled": {"sampling": SAMPLED},
    "filtered": {"sampling": SAMPLED.model_copy(update={"top_k": 20, "top_p": 0.9})},
    "lookup": {"sampling": GREEDY, "depth": DRAFTS},
    "lookup, sampled": {"sampling": SAMPLED, "depth": DRAFTS},
    "layers": {"sampling": GREEDY, "depth": Depth(draft="layers")},
    "trees": {"sampling": GREEDY, "depth": Depth(draft="layers", trees=True)},
    "random": {"sampling": GREEDY, "memory": Memory(budget=30, policy="random")},
    "window, drafts": {
        "sampling": SAMPLED,
        "memory": Memory(budget=30, policy="window"),
        "depth": DRAFTS,
    },
}


@cache
def engine(model: Any, decoder: str, device: str = "cpu") -> Engine:
    return sparing.load(model, dtype="float64", decoder=decoder, device=device)


def both(
    model: Any, decoder: str, way: dict[str, Any], monkeypatch: Any, prompts: Any = PROMPTS
) -> tuple[int, int, Counter[str]]:
    """Compares tokens and evictions; returns passes and evictions on the device, and the copies."""
    expected = engine(model, decoder).generate(prompts, **way)
    there = engine(model, decoder, device())
    there.generate(prompts[0], sampling=Sampling(max_new_tokens=1))  # what is made once
    kind, passes = type(there.decoder), Counter[str]()
    once = kind.__call__

    def count(self: Any, *args: Any, **kwargs: Any) -> Any:
        passes["all"] += 1
        output = once(self, *args, **kwargs)
        assert isinstance(output.logits, Elsewhere)
        return output

    monkeypatch.setattr(kind, "__call__", count)
    with counting() as counted:
        found = there.generate(prompts, **way)
    for here, other in zip(expected, found, strict=True):
        assert here.token_ids == other.token_ids
        assert here.stats.evictions == other.stats.evictions
        assert here.stats.latent_tokens == other.stats.latent_tokens
    return passes["all"], sum(each.stats.evictions for each in found), counted


@pytest.mark.parametrize("decoder", ["fast", "hub"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_pass_waits_once(way, decoder, monkeypatch):
    passes, evictions, counted = both(tiny("qwen3"), decoder, way, monkeypatch)
    assert bool(evictions) == ("memory" in way)
    assert counted["waiting"] == 0, "numbers go to the device without waiting for it"
    assert counted["down"] == passes


@pytest.mark.parametrize("decoder", ["fast", "hub"])
@pytest.mark.parametrize("policy", ["h2o", "snapkv", "rkv"])
def test_a_policy_reads_at_an_eviction(policy, decoder, monkeypatch):
    way = {"sampling": GREEDY, "memory": Memory(budget=30, policy=policy)}
    passes, evictions, counted = both(tiny("qwen3"), decoder, way, monkeypatch)
    assert counted["waiting"] == 0
    of_keys = engine(tiny("qwen3"), decoder).decoder.shape.layers if policy == "rkv" else 0
    assert evictions > 0
    assert counted["down"] <= passes + (1 + of_keys) * evictions


@pytest.mark.parametrize("decoder", ["fast", "hub"])
@pytest.mark.parametrize("more", [{"repetition_penalty": 1.2}, {"logprobs": 2}], ids=str)
def test_what_reads_more(more, decoder, monkeypatch):
    """Each pick changes the next, or is told with its neighbours."""
    both(tiny("qwen3"), decoder, {"sampling": SAMPLED.model_copy(update=more)}, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("family", HUB)
def test_every_architecture(family, monkeypatch):
    """Experts of transformers wait by themselves: for the tokens that each of them got."""
    passes, _, counted = both(HUB[family](), "hub", WAYS["greedy"], monkeypatch)
    assert counted["waiting"] == 0
    assert counted["down"] == passes or family in ("gpt_oss", "qwen3_moe", "mixtral")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "way"),
    [
        ("pocket", {"memory": Memory(budget=0.5, policy="learned")}),
        ("pocket-latent", {"latent": Latent(mode="confidence", tau=0.9)}),
        ("pocket-latent", {"latent": Latent(mode="confidence", tau=0.9), "depth": DRAFTS}),
    ],
    ids=["learned", "latent", "latent with drafts"],
)
def test_predictor_and_latents(model, way, monkeypatch):
    prompts = [[{"role": "user", "content": f"What is 382 - 197 + {n}?"}] for n in (7, 29)]
    way = {"sampling": Sampling(max_new_tokens=100), **way}
    _, evictions, counted = both(model, "fast", way, monkeypatch, prompts)
    assert bool(evictions) == ("memory" in way)
    assert counted["waiting"] == 0
