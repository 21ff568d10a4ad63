"""Pairs that cannot work are refused in one line, before anything runs, whatever else is asked."""

from itertools import product
from typing import Any, get_args

import pytest

from sparing import Depth, Latent, Memory
from sparing.api import Engine
from sparing.errors import OptionError
from sparing.options import POLICY_NAMES, DraftName, LatentMode
from tests.depth.planted import planted
from tests.latent.thinking import thinker, thinking
from tests.pairs import cells
from tests.tiny import engine, unchecked

ALL = {
    "policy": POLICY_NAMES,
    "draft": get_args(DraftName),
    "latent": get_args(LatentMode),
    "picks": tuple(cells.SAMPLINGS),
}
THINKING = ("learned", "confidence")


def memory(policy: str) -> Memory:
    return Memory() if policy == "full" else Memory(budget=40, policy=policy)


def ask(model: Engine, policy: str, draft: str, latent: str, picks: str) -> Any:
    """Nothing runs before the stream is asked for its first event."""
    options = memory(policy), Depth(draft=draft), Latent(mode=latent)  # type: ignore[arg-type]
    return model.stream("so<think>", *options, cells.SAMPLINGS[picks])


@unchecked()
def assert_refused(model: Engine, said: str, **only: tuple[str, ...]) -> None:
    """``only``: the values that are refused, beside all of the other axes; all others are taken."""
    for values in product(*ALL.values()):
        chosen = dict(zip(ALL, values, strict=True))
        if not all(chosen[axis] in some for axis, some in only.items()):
            ask(model, *values)
            continue
        with pytest.raises(OptionError) as error:
            ask(model, *values)
        assert str(error.value).startswith(said.format(**chosen))
        assert "\n" not in str(error.value)


def test_scores_that_nobody_predicts():
    bare = thinker(cells.checkpoint("llama"))
    said = "policy {policy} needs a model with an importance predictor, got one without; "
    assert_refused(bare, said, policy=("learned", "bottom"))


def test_layers_that_cannot_be_left_out(monkeypatch):
    model = thinker(cells.checkpoint("llama"), decoder="hub")
    monkeypatch.setattr(type(model.decoder), "can_skip", False)
    bare = cells.engine("llama")
    reference = Engine(model.decoder, model.chat, "reference", bare.predictor, None, model.latents)
    said = "draft {draft} needs a model of 3 layers or more that can be left out; "
    assert_refused(reference, said, draft=("layers", "hybrid"))


def test_latents_that_were_never_learned():
    bare, known = engine(planted("llama")), cells.engine("llama")
    plain = Engine(bare.decoder, bare.chat, "plain", known.predictor)
    said = "latent {latent} needs a model with learned latent steps (latent.json), got one "
    assert_refused(plain, said, latent=THINKING)


def test_a_latent_token_that_was_no_target():
    source = planted("llama")
    ignoring, known = thinker(thinking("llama", source, targets="ignore")), cells.engine("llama")
    parts = ignoring.decoder, ignoring.chat, "ignoring", known.predictor, None, ignoring.latents
    said = "latent learned needs a model trained to predict its latent token, got one "
    assert_refused(Engine(*parts), said, latent=("learned",))


def test_all_of_it_goes_together_where_a_model_has_all():
    assert_refused(cells.engine("llama"), "", policy=())


@pytest.mark.parametrize("policy", [p for p in ALL["policy"] if p not in ("auto", "full")])
def test_a_policy_without_a_budget(policy):
    with pytest.raises(OptionError, match=f"policy {policy} needs a budget, got none; "):
        Memory(policy=policy)


def test_a_budget_that_nothing_is_evicted_for():
    with pytest.raises(OptionError, match="policy full keeps everything: pass no budget"):
        Memory(policy="full", budget=40)


@pytest.mark.parametrize("draft", ALL["draft"])
def test_trees_of_drafts_that_have_none(draft):
    if draft in ("layers", "hybrid", "auto"):
        assert Depth(draft=draft, trees=True).trees
        return
    with pytest.raises(OptionError) as error:
        Depth(draft=draft, trees=True)
    said = f"trees needs draft layers, hybrid or auto, got {draft}; leave trees out"
    assert str(error.value) == said
