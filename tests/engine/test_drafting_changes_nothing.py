"""Exact 2: for a seed, greedy or sampled, with or without evictions, drafts change no token, no
text, no kind, and no eviction."""

import itertools
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparing.depth.lookup import PromptLookup
from sparing.engine.drafter import NoDrafter
from sparing.engine.events import scores_by_position
from sparing.engine.eviction import SlotView
from sparing.options import Memory, Sampling
from tests.engine.drafters import all_drafters
from tests.engine.driving import run, said
from tests.tiny import engine, tiny, unchecked

PROMPTS = [list(b"Q"), list(b"so, 7 + 9 is"), list(b"abcabcab")]
FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "top_k": st.integers(1, 40),
        "top_p": st.floats(0.3, 1.0),
        "min_p": st.floats(0.0, 0.3),
        "repetition_penalty": st.floats(0.8, 1.8),
    },
)


def assert_drafts_change_nothing(model: Any, prompts: Any, sampling: Any, memories: Any) -> Any:
    plain = run(model, prompts, sampling, memories, drafter=NoDrafter())
    texts = [result.prompt_token_ids + result.token_ids for result in plain]
    drafters = {"lookup": PromptLookup()} | all_drafters(texts)
    for name, drafter in drafters.items():
        drafted = run(model, prompts, sampling, memories, drafter=drafter)
        assert [said(a) for a in plain] == [said(b) for b in drafted], name
        if name == "right":  # between evictions all of it is accepted
            counts = [r.stats.new_tokens - r.stats.accepted for r in drafted]
            assert max(counts) < plain[0].stats.new_tokens / 2
    return plain


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize(
    ("evictions", "policy"),
    [(0, None), *itertools.product([1, 2, 50], ["window", "streaming", "random"])],
)
@unchecked()
def test_so_many_evictions(evictions, policy, temperature):
    """After 15 tokens 14 slots are in use beside the prompt; each eviction frees 5 of them."""
    model = engine(tiny("qwen3", markers=None, num_hidden_layers=2, tie_word_embeddings=True))
    prompts = PROMPTS if evictions < 50 else PROMPTS[2:]
    count = 15 + 5 * evictions
    sampling = Sampling(temperature=temperature, seed=7, max_new_tokens=count, ignore_eos=True)
    memories = [
        policy and Memory(budget=len(prompt) + 14, local=4, selection=5, policy=policy)
        for prompt in prompts
    ]
    for result in assert_drafts_change_nothing(model, prompts, sampling, memories):
        assert result.stats.evictions == evictions
        assert result.stats.new_tokens == count


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(
    options=FILTERS,
    temperature=st.sampled_from([0.0, 0.6, 1.0, 1.4]),
    seed=st.integers(0, 2**63 - 1),
    room=st.none() | st.integers(8, 40),
    selection=st.sampled_from([0, 3, 0.25, 0.4, None]),
    policy=st.sampled_from(["window", "streaming", "random"]),
    think_budget=st.none() | st.integers(0, 30),
    opened=st.booleans(),
    markers=st.sampled_from(["single", "several", None]),
    ignore_eos=st.booleans(),
)
@unchecked()
def test_any_options(
    options, temperature, seed, room, selection, policy, think_budget, opened, markers, ignore_eos
):
    model = engine(tiny(markers=markers, num_hidden_layers=2))
    prompts = ["so<think>" if opened else "so", "1 1 1 1 1 1"]
    budgets = [
        room
        and Memory(budget=len(model.chat.encode(p).ids) + room, selection=selection, policy=policy)
        for p in prompts
    ]
    sampling = Sampling(
        temperature=temperature,
        seed=seed,
        max_new_tokens=60,
        ignore_eos=ignore_eos,
        think_budget=think_budget if markers else None,
        stop=["zz", "\ufffd" * 30],
        **options,
    )
    plain = run(model, prompts, sampling, budgets, drafter=NoDrafter())
    texts = [result.prompt_token_ids + result.token_ids for result in plain]
    for drafter in [PromptLookup(), *all_drafters(texts).values()]:
        drafted = run(model, prompts, sampling, budgets, drafter=drafter)
        assert [said(a) for a in plain] == [said(b) for b in drafted]


@dataclass(frozen=True)
class ByScore:
    """What a predictor thinks of a slot decides."""

    name = "by-score"
    watches = 0

    def score(self, view: SlotView) -> Any:
        return view.scores[:, 0]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@unchecked()
def test_predicted_importance_decides(temperature):
    """Scores come from the hidden states of committed tokens, rejected drafts leave none."""
    model = engine(tiny(num_hidden_layers=2))
    direction = torch.randn(48, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    parts = {"predictor": lambda hidden: hidden @ direction, "policy": ByScore()}
    sampling = Sampling(temperature=temperature, seed=3, max_new_tokens=80, ignore_eos=True)
    memories = [Memory(budget=len(p) + 20) for p in PROMPTS]
    plain = run(model, PROMPTS, sampling, memories, **parts)
    assert all(result.stats.evictions > 3 for result in plain)
    texts = [result.prompt_token_ids + result.token_ids for result in plain]
    for drafter in all_drafters(texts).values():
        drafted = run(model, PROMPTS, sampling, memories, drafter=drafter, **parts)
        assert [said(a) for a in plain] == [said(b) for b in drafted]
        for a, b in zip(plain, drafted, strict=True):
            assert scores(b) == pytest.approx(scores(a), abs=1e-9)


def scores(result: Any) -> list[float]:
    """Every token's but the last one's, which never went through the model."""
    told = scores_by_position(result.events)
    assert len(told) == len(result.token_ids) - 1
    return [told[position] for position in sorted(told)]
