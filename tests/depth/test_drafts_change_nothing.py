"""Exact 1 to 3 for every drafter: trees, chains, any batch, evicting or not, greedy or sampled."""

import itertools
from typing import Any

import pytest

from sparing import Depth, Memory, Sampling
from sparing.depth.costs import Costs
from sparing.depth.shortlist import Shortlist
from sparing.depth.state import DraftingState
from sparing.engine.result import Result
from tests.depth.planted import IDLE, WRONG, knowing, planted, unhurried
from tests.engine.driving import said
from tests.tiny import engine, unchecked

FAMILIES = ["llama", "mistral", "qwen2", "qwen3"]
PROMPTS = [list(b"Q"), list(b"so, 7 + 9 is"), list(b"abcabcab")]
COUNT = 60


def drafting(draft: str, trees: bool = False, **more: Any) -> Depth:
    """However unsure a random model is, it drafts many tokens."""
    most = 30 if trees else 9
    return Depth(draft=draft, trees=trees, confidence=0.0, max_draft=most, **more)  # type: ignore[arg-type]


def loaded(family: str, layer_set: Any = IDLE, **options: Any) -> Any:
    """However often the set is wrong, it stays."""
    return knowing(engine(planted(family, **options)), layer_set, matchness=0.1)


def answers(model: Any, depth: Depth, memory: Any, sampling: Any, **more: Any) -> list[Result]:
    return model.generate(PROMPTS, memory, depth, None, sampling, **more)


def fared(results: list[Result]) -> tuple[int, int]:
    """How many tokens were drafted, and how many of them accepted."""
    return sum(r.stats.drafted for r in results), sum(r.stats.accepted for r in results)


def options(budget: bool, temperature: float) -> tuple[Any, Any]:
    memories = [Memory(budget=len(p) + 24, local=8, policy="window") for p in PROMPTS]
    sampling = Sampling(temperature=temperature, seed=5, max_new_tokens=COUNT, ignore_eos=True)
    return memories if budget else None, sampling


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "budget", "temperature"),
    [
        (family, budget, (0.0, 0.7)[(at + budget) % 2])
        for at, family in enumerate(FAMILIES)
        for budget in (False, True)
    ],
)
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "budget", "temperature"),
    [("llama", False, 0.0), ("mistral", True, 0.7), ("qwen2", True, 0.0), ("qwen3", False, 0.7)],
)
@unchecked()
def test_a_set_that_is_often_wrong(family, budget, temperature):
    """What rejected drafts leave in the cache, in the layers that ran, is never used."""
    model = loaded(family, WRONG)
    chosen = options(budget, temperature)
    plain = answers(model, Depth(draft="off"), *chosen)
    for draft, trees in itertools.product(["layers", "hybrid"], [False, True]):
        depth = drafting(draft, trees).model_copy(update={"max_draft": 20 if trees else 4})
        found = answers(model, depth, *chosen, batch_size=3)
        assert [said(a) for a in found] == [said(b) for b in plain], (draft, trees)
        drafted, accepted = fared(found)
        assert 0 < accepted < drafted


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize(
    ("count", "context", "reason"),
    [(1, 2048, "length"), (3, 2048, "length"), (COUNT, 30, "context"), (COUNT, 2048, "stop")],
    ids=["no room", "room for one more", "end of the context", "a drafted stop token"],
)
@unchecked()
def test_a_draft_at_the_end(count, context, reason, temperature):
    model = loaded("llama", max_position_embeddings=context)
    sampling = options(False, temperature)[1].model_copy(update={"max_new_tokens": count})
    plain = answers(model, Depth(draft="off"), None, sampling)
    if reason == "stop":
        ends = [next(t for t in r.token_ids[2:] if t not in r.token_ids[:2]) for r in plain]
        sampling = [sampling.model_copy(update={"stop_token_ids": [end]}) for end in ends]
        plain = answers(model, Depth(draft="off"), None, sampling)
    assert {result.finish_reason for result in plain} == {reason}
    for draft, trees in itertools.product(["layers", "hybrid"], [False, True]):
        found = answers(model, drafting(draft, trees), None, sampling, batch_size=3)
        assert [said(a) for a in found] == [said(b) for b in plain], (draft, trees)
        if draft == "layers":
            last = {[e for e in r.events if e.type == "token"][-1].origin for r in found}
            assert last == {"draft" if reason == "stop" else "model"}
            assert (fared(found)[1] > 0) == (count > 1)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["speed", "matchness"])
@unchecked()
def test_while_the_set_is_being_looked_for(objective, monkeypatch):
    """Any set is worth it where drafts cost next to nothing, also one that is often wrong."""
    unhurried(monkeypatch, Costs(rest=0.02, attention=0.01, mlp=0.01, token=0.005))
    model = loaded("llama", None)
    sampling = Sampling(temperature=0.7, seed=5, max_new_tokens=300, ignore_eos=True)
    memories = [None, Memory(budget=80, policy="window"), Memory(budget=60, policy="random")]
    plain = answers(model, Depth(draft="off"), memories, sampling)
    more = {"objective": objective, "interval": 8, "window": 16}
    for draft in ("layers", "auto"):
        found = answers(model, drafting(draft, **more), memories, sampling)
        assert [said(a) for a in found] == [said(b) for b in plain]
        drafted, accepted = fared(found)
        assert draft == "auto" or 0 < accepted < drafted


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
@unchecked()
def test_with_a_shortlist(family, temperature, monkeypatch):
    """Drafts may use 40 words of all; the first ones, and such as were asked or said."""
    model = loaded(family)  # stays as it is for other tests
    monkeypatch.setattr("sparing.depth.shortlist.SMALL", 0)
    monkeypatch.setattr(Shortlist.__init__, "__defaults__", (40,))
    monkeypatch.setattr(model, "drafting", DraftingState(model.decoder, model.drafting.sets))
    assert len(model.drafting.shortlist.ids) == 40
    sampling = Sampling(temperature=temperature, seed=5, max_new_tokens=COUNT, ignore_eos=True)
    plain = answers(model, Depth(draft="off"), None, sampling)
    for draft, trees in itertools.product(["layers", "hybrid", "auto"], [False, True]):
        found = answers(model, drafting(draft, trees), None, sampling, batch_size=3)
        assert [said(a) for a in found] == [said(b) for b in plain], (draft, trees)
        assert draft == "auto" or sum(r.stats.accepted for r in found) > 0
    words = model.drafting.shortlist.ids.tolist()
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
