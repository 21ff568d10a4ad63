"""Evicting is masking under every policy, in batched rows: same logits, same predicted scores."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from sparing.engine.events import EvictEvent, scores_by_position
from sparing.engine.result import Result
from sparing.memory.find import POLICIES
from sparing.options import Memory, Sampling
from tests.engine.drafters import all_drafters
from tests.engine.driving import Recorder, run
from tests.engine.test_eviction_exact import MODELS, masked_pass
from tests.memory.small import HORIZONS, predicting
from tests.tiny import tiny, unchecked

PROMPTS = [list(b"Q"), list(b"a question of 24 bytes.."), list(b"and one that is longer. " * 3)]
ROOMS = (21, 24, 40)  # slots beside the question; 40: a twentieth of the budget is more than one
COUNT = 80
SAMPLING = Sampling(temperature=1.0, seed=4, max_new_tokens=COUNT, ignore_eos=True)


def evictions_of(result: Result) -> list[EvictEvent]:
    return [event for event in result.events if isinstance(event, EvictEvent)]


def ran(
    path: Any, policy: str, horizons: Sequence[int] = HORIZONS, **parts: Any
) -> tuple[list[Result], Recorder, Any]:
    """The three rows at once, each with a budget of its own."""
    model = predicting(path, horizons=horizons)
    recorder = Recorder(model.decoder)
    memories = [
        Memory(budget=len(prompt) + room, local=room // 3, policy=policy)
        for prompt, room in zip(PROMPTS, ROOMS, strict=True)
    ]
    results = run(model, PROMPTS, SAMPLING, memories, decoder=recorder, chunk=17, **parts)
    return results, recorder, model.predictor


def assert_masked(path: Any, results: list[Result], recorder: Recorder, predictor: Any) -> None:
    for index, (prompt, result) in enumerate(zip(PROMPTS, results, strict=True)):
        evictions = evictions_of(result)
        tokens = prompt + result.token_ids
        assert len(result.token_ids) == COUNT
        assert len(evictions) >= 2
        masked = masked_pass(path, result, evictions)
        along = recorder.logits_along(tokens, index)
        assert set(along) == set(range(len(prompt) - 1, len(tokens) - 1))
        ours = torch.stack([along[position] for position in sorted(along)])
        truth = masked.logits[0, len(prompt) - 1 : -1]
        torch.testing.assert_close(ours, truth, rtol=0, atol=1e-4)
        bare = masked_pass(path, result, []).logits[0, len(prompt) - 1 : -1]
        assert (ours - bare).abs().max() > 0.1, "the mask must matter, or this test shows nothing"
        told = scores_by_position(result.events)
        scores = [told[position] for position in sorted(told)]
        predicted = predictor(masked.hidden_states[-1][0])[len(prompt) : -1, 0]
        assert scores == pytest.approx(predicted.tolist(), abs=1e-4)


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("policy", POLICIES)
@unchecked()
def test_every_logit_and_every_score(family, policy):
    path = tiny(family, markers=None, **MODELS[family])
    results, recorder, predictor = ran(path, policy)
    assert {result.stats.policy for result in results} == {policy}
    assert_masked(path, results, recorder, predictor)
    texts = [result.prompt_token_ids + result.token_ids for result in results]
    drafters = all_drafters(texts)
    for name in ("half", "tree"):
        drafted, recorder, predictor = ran(path, policy, drafter=drafters[name])
        assert sum(result.stats.accepted for result in drafted) > 20
        assert [evictions_of(r) for r in drafted] == [evictions_of(r) for r in results]
        assert_masked(path, drafted, recorder, predictor)


@pytest.mark.parametrize(("policy", "sign"), [("learned", 1), ("bottom", -1)])
def test_what_goes_scored_no_better_than_what_stays(policy, sign):
    """By the scores that the events tell; the selection is a share of what is unprotected."""
    results, _, _ = ran(tiny("llama", markers=None), policy, horizons=[0])
    for prompt, room, result in zip(PROMPTS, ROOMS, results, strict=True):
        begin, local = len(prompt), room // 3
        by_position = scores_by_position(result.events)
        told = [by_position[position] for position in sorted(by_position)]
        held: list[int] = []
        at = begin
        for event in evictions_of(result):
            held += range(at, event.at)
            at = event.at
            assert begin + len(held) == begin + room
            scores = {p: sign * told[p - begin] for p in held[:-local]}
            stay = [score for p, score in scores.items() if p not in event.positions]
            gone = [scores[p] for p in event.positions]
            assert len(stay) == int(0.4 * len(scores))
            assert min(stay) >= max(gone)
            held = [p for p in held if p not in event.positions]
        assert np.std(told) > 0.1
