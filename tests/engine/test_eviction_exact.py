"""Exact 4: evicting is the same as masking: one pass of transformers over the whole sequence, in
which positions from ``at`` on do not see what was evicted there, gives the same logits."""

from typing import Any

import pytest
import torch
from torch import Tensor

from sparing.depth.lookup import PromptLookup
from sparing.engine.drafter import NoDrafter
from sparing.engine.events import EvictEvent
from sparing.engine.result import Result
from sparing.options import Memory, Sampling
from tests.engine.drafters import Branching
from tests.engine.driving import Recorder, run
from tests.tiny import engine, reference, tiny

PROMPT = list(b"a question of 24 bytes..")
MODELS = {
    "llama": {"num_attention_heads": 9, "num_key_value_heads": 1, "hidden_size": 54},
    "qwen3": {"num_attention_heads": 6, "num_key_value_heads": 3, "tie_word_embeddings": True},
}


def visible(count: int, events: list[EvictEvent]) -> Tensor:
    """Which of ``count`` positions each one sees [T, T]: all up to itself but those evicted."""
    sees = torch.ones(count, count, dtype=torch.bool).tril()
    for event in events:
        sees[event.at :, event.positions] = False
    return sees


@torch.inference_mode()
def masked_pass(path: Any, result: Result, events: list[EvictEvent]) -> Any:
    """transformers over the full sequence, under the mask that the evictions describe."""
    tokens = torch.tensor([result.prompt_token_ids + result.token_ids])
    sees = visible(tokens.shape[1], events)
    mask = torch.zeros(sees.shape, dtype=torch.float64).masked_fill(~sees, float("-inf"))
    return reference(path)(tokens, attention_mask=mask[None, None], output_hidden_states=True)


def masked_logits(path: Any, result: Result, events: list[EvictEvent]) -> Tensor:
    """Logits ``[T, V]``."""
    return masked_pass(path, result, events).logits[0]


def drafters(result: Result) -> dict[str, Any]:
    tree = Branching([result.prompt_token_ids + result.token_ids], 0.9)
    return {"off": NoDrafter(), "lookup": PromptLookup(), "tree": tree}


@pytest.mark.slow
@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("policy", ["window", "streaming", "random"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_logit_of_an_evicted_run(family, policy, temperature):
    path = tiny(family, **MODELS[family])
    model = engine(path)
    memory = Memory(budget=len(PROMPT) + 24, policy=policy)
    sampling = Sampling(temperature=temperature, seed=4, max_new_tokens=90, ignore_eos=True)
    [plain] = run(model, [PROMPT], sampling, memory)
    evictions = [event for event in plain.events if isinstance(event, EvictEvent)]
    assert len(evictions) > 4
    expected = masked_logits(path, plain, evictions)
    unmasked = masked_logits(path, plain, [])
    for name, drafter in drafters(plain).items():
        recorder = Recorder(model.decoder)
        [result] = run(
            model, [PROMPT], sampling, memory, drafter=drafter, decoder=recorder, chunk=7
        )
        tokens = result.prompt_token_ids + result.token_ids
        along = recorder.logits_along(tokens)
        assert set(along) == set(range(len(PROMPT) - 1, len(tokens) - 1))
        for position, logits in along.items():
            torch.testing.assert_close(
                logits, expected[position], rtol=0, atol=1e-4, msg=f"{name} at {position}"
            )
        after = [position for position in along if position >= evictions[0].at]
        worst = max((along[p] - unmasked[p]).abs().max() for p in after)
        assert worst > 0.1, "the mask must matter, or this test shows nothing"


def test_what_goes_is_what_the_policy_says():
    """Window: a run of the oldest thoughts. Streaming: the same behind four sinks."""
    path = tiny("llama", markers=None)
    for policy, sinks in {"window": 0, "streaming": 4}.items():
        memory = Memory(budget=len(PROMPT) + 20, local=6, selection=5, policy=policy)
        [result] = run(engine(path), [PROMPT], Sampling(max_new_tokens=60, temperature=0.0), memory)
        first = len(PROMPT) + sinks
        for event in result.events:
            if isinstance(event, EvictEvent):
                assert event.positions == list(range(first, first + 9))
                first += 9
                assert event.at == event.positions[-1] + 1 + (5 - sinks) + 6
        assert result.stats.evictions == 5
        assert result.stats.evicted_tokens == 45


def test_random_keeps_by_seed():
    path = tiny("llama", markers=None)

    def evicted(seed: int) -> list[list[int]]:
        memory = Memory(budget=len(PROMPT) + 20, policy="random")
        sampling = Sampling(temperature=0.0, seed=seed, max_new_tokens=40, ignore_eos=True)
        [result] = run(engine(path), [PROMPT], sampling, memory)
        return [e.positions for e in result.events if isinstance(e, EvictEvent)]

    assert evicted(1) == evicted(1) != evicted(2)
