"""Exact 1 to 3 for every drafter: trees, chains, any batch, evicting or not, greedy or sampled."""

import itertools
from typing import Any

import pytest

from sparing import Depth, Memory, Sampling
from sparing.depth.find import Known
from sparing.depth.shortlist import Shortlist
from sparing.depth.store import Tuned
from sparing.engine.result import Result
from tests.depth.planted import IDLE, planted
from tests.engine.driving import said
from tests.tiny import engine, unchecked

FAMILIES = ["llama", "mistral", "qwen2", "qwen3"]
PROMPTS = [list(b"Q"), list(b"so, 7 + 9 is"), list(b"abcabcab")]
COUNT = 60


def drafting(draft: str, trees: bool = False, **more: Any) -> Depth:
    """However unsure a random model is, it drafts many tokens."""
    most = 30 if trees else 9
    return Depth(draft=draft, trees=trees, confidence=0.0, max_draft=most, **more)  # type: ignore[arg-type]


def loaded(family: str, known: bool = True, **options: Any) -> Any:
    """With the planted layer set, or with one yet to be found."""
    model = engine(planted(family, **options))
    model.drafting.forget()
    model.drafting.sets = {"planted": Tuned(IDLE, 1.0, 2.0)} if known else {}
    return model


def answers(model: Any, depth: Depth, memory: Any, sampling: Any, **more: Any) -> list[Result]:
    return model.generate(PROMPTS, memory, depth, None, sampling, **more)


def options(budget: bool, temperature: float) -> tuple[Any, Any]:
    memories = [Memory(budget=len(p) + 24, local=8, policy="window") for p in PROMPTS]
    sampling = Sampling(temperature=temperature, seed=5, max_new_tokens=COUNT, ignore_eos=True)
    return memories if budget else None, sampling


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("budget", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
@unchecked()
def test_every_drafter(family, budget, temperature):
    model = loaded(family)
    chosen = options(budget, temperature)
    plain = answers(model, Depth(draft="off"), *chosen)
    for draft, trees in itertools.product(["layers", "hybrid", "auto"], [False, True]):
        for batch_size in (1, 3):
            found = answers(model, drafting(draft, trees), *chosen, batch_size=batch_size)
            assert [said(a) for a in found] == [said(b) for b in plain], (draft, trees, batch_size)
            if draft == "layers" and not budget:
                steps = COUNT - sum(r.stats.accepted for r in found) / len(PROMPTS)
                assert steps < COUNT / 2, "a set of idle sub-layers skipped drafts rightly"


@pytest.mark.parametrize("objective", ["speed", "matchness"])
@unchecked()
def test_while_the_set_is_being_looked_for(objective):
    model = loaded("llama", known=False)
    sampling = Sampling(temperature=0.7, seed=5, max_new_tokens=300, ignore_eos=True)
    memories = [None, Memory(budget=80, policy="window"), Memory(budget=60, policy="random")]
    plain = answers(model, Depth(draft="off"), memories, sampling)
    more = {"objective": objective, "interval": 8, "window": 16}
    for draft in ("layers", "auto"):
        found = answers(model, drafting(draft, **more), memories, sampling)
        assert [said(a) for a in found] == [said(b) for b in plain]


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
@unchecked()
def test_with_a_shortlist(family, temperature, monkeypatch):
    """Drafts may use 40 words of all; the first ones, and such as were asked or said."""
    model = loaded(family)  # stays as it is for other tests
    monkeypatch.setattr("sparing.depth.shortlist.SMALL", 0)
    monkeypatch.setattr(Shortlist.__init__, "__defaults__", (40,))
    monkeypatch.setattr(model, "drafting", Known(model.decoder, model.drafting.sets))
    assert len(model.drafting._shortlist.ids) == 40
    sampling = Sampling(temperature=temperature, seed=5, max_new_tokens=COUNT, ignore_eos=True)
    plain = answers(model, Depth(draft="off"), None, sampling)
    for draft, trees in itertools.product(["layers", "hybrid", "auto"], [False, True]):
        found = answers(model, drafting(draft, trees), None, sampling, batch_size=3)
        assert [said(a) for a in found] == [said(b) for b in plain], (draft, trees)
        assert draft == "auto" or sum(r.stats.accepted for r in found) > 0
    words = model.drafting.layers(drafting("layers"), None).shortlist.ids.tolist()
    assert set(words) - set(range(40)), "words that were said came in"


@unchecked()
def test_with_a_penalty_a_stop_and_a_closed_thought():
    model = loaded("qwen3")
    sampling = Sampling(
        temperature=0.9,
        seed=1,
        max_new_tokens=COUNT,
        repetition_penalty=1.3,
        stop=["e", "~~"],
        think_budget=20,
    )
    prompts = ["so<think>", "1 1 1 1"]
    plain = model.generate(prompts, depth=Depth(draft="off"), sampling=sampling)
    for draft, trees in itertools.product(["layers", "hybrid", "auto"], [False, True]):
        found = model.generate(prompts, depth=drafting(draft, trees), sampling=sampling)
        assert [said(a) for a in found] == [said(b) for b in plain]
