"""Latent steps in the engine: what is replayed, drafted, evicted, batched and streamed alike."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from sparing import Depth, Latent, Memory, Sampling
from sparing.api import Engine
from sparing.depth.layer_sets import TunedLayerSet
from sparing.engine.drafter import NoDrafter
from sparing.engine.events import EvictEvent, LatentEvent, TokenEvent
from sparing.errors import OptionError, PromptError
from sparing.latent.attention import NAME
from sparing.latent.forward import segmented_forward
from sparing.latent.switch import find_switch
from tests.depth.planted import IDLE, planted
from tests.engine.drafters import all_drafters
from tests.engine.driving import Recorder, run
from tests.latent.thinking import latents, said, thinker, thinking, with_latents
from tests.memory.small import random_predictor
from tests.model.passes import exact_norms
from tests.tiny import unchecked

PROMPTS = [list(b"Q"), list(b"so, 7 + 9 is"), list(b"abcabcab")]
COUNT = 50
LEARNED = Latent(mode="learned", most=20)
UNSURE = Latent(mode="confidence", tau=0.4, most=25)
MODES = {"learned": LEARNED, "confidence": UNSURE}
PLAIN = Depth(draft="off")
DRAFTERS = [
    ("layers", False),
    ("layers", True),
    ("hybrid", True),
    ("lookup", False),
    ("auto", False),
]
EVICTING = [Memory(budget=len(p) + 20, local=6, policy="window") for p in PROMPTS]


def sampling(temperature=0.0, **more):
    values = {"seed": 3, "max_new_tokens": COUNT, "ignore_eos": True} | more
    return Sampling(temperature=temperature, **values)


def answers(engine, latent, depth=PLAIN, memory=None, temperature=0.0, **more):
    return engine.generate(PROMPTS, memory, depth, latent, sampling(temperature), **more)


RECIPES = {
    "fused": {},
    "hidden, the last layer": {"vector": "hidden", "layer": -1},
    "reference nucleus": {"nucleus": "reference", "alpha": 0.2, "temperature": 2.0, "layer": 1},
    "adapter": {"adapter": 9, "match_norms": True},
    "pause": {"vector": "pause"},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", RECIPES)
def test_a_replay_gives_the_engine_s_logits(name, mode):
    """What was generated, teacher-forced through the training forward: the same vectors."""
    check_replay(thinking(**RECIPES[name]), MODES[mode])


@pytest.mark.parametrize("family", ["mistral", "qwen2", "qwen3"])
def test_of_every_family(family):
    check_replay(thinking(family), UNSURE)


@torch.no_grad()
def check_replay(path, latent, temperature=0.0):
    engine = thinker(path)
    config, vector = engine.latents
    recorder = Recorder(engine.decoder)
    switch = find_switch(latent, engine.latents, engine.decoder, engine.chat.tokenizer)
    parts = {"decoder": recorder, "switch": switch, "drafter": NoDrafter()}
    [result] = run(engine, PROMPTS[1:2], sampling(temperature), **parts)
    assert result.stats.latent_tokens > 3
    ids = torch.tensor([with_latents(result, config.id)])
    model = exact_norms(AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64))
    model.set_attn_implementation(NAME)
    states = segmented_forward(model, vector, ids, torch.tensor([ids.shape[1]]))[-1]
    logits = model.get_output_embeddings()(states)[0]
    ours = {i.positions[-1]: out[-1] for [i], out in recorder.passes if i.scored}
    assert sorted(ours) == list(range(len(PROMPTS[1]) - 1, ids.shape[1] - 1))
    for position, found in ours.items():
        assert (found - logits[position]).abs().max() < 1e-5, position


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_the_reference_decoder_thinks_the_same(mode, temperature):
    path = thinking()
    ours, theirs = (
        answers(thinker(path, decoder=d), MODES[mode], temperature=temperature)
        for d in ("fast", "hub")
    )
    assert [said(a)["token_ids"] for a in ours] == [said(b)["token_ids"] for b in theirs]
    assert [latents(a) for a in ours] == [latents(b) for b in theirs]
    assert sum(map(len, map(latents, ours))) > 5


@pytest.mark.parametrize("budget", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("mode", MODES)
@unchecked()
def test_drafting_changes_neither_tokens_nor_latents(mode, temperature, budget):
    engine = thinker(thinking(source=planted()))
    engine.drafting.forget()
    engine.drafting.sets = {"planted": TunedLayerSet(IDLE, 1.0, 2.0)}
    memory = EVICTING if budget else None
    plain = answers(engine, MODES[mode], PLAIN, memory, temperature)
    assert all(len(latents(result)) > 2 for result in plain)
    assert all(result.stats.evictions > 1 for result in plain) == budget
    for turn, (draft, trees) in enumerate(DRAFTERS):
        depth = Depth(draft=draft, trees=trees, confidence=0.0, max_draft=9)
        size = 1 + turn % 3
        found = answers(engine, MODES[mode], depth, memory, temperature, batch_size=size)
        assert [said(a) for a in found] == [said(b) for b in plain], (draft, trees)
        if draft == "layers":
            assert sum(result.stats.accepted for result in found) > 20


@pytest.mark.parametrize("draft", ["off", "layers"])
@unchecked()
def test_rows_of_one_batch_think_each_in_its_own_way(draft):
    """Words alone, where the model says so, where it is unsure: as each does by itself."""
    engine = thinker(thinking(source=planted()))
    engine.drafting.sets = {"planted": TunedLayerSet(IDLE, 1.0, 2.0)}
    modes = [Latent(), *MODES.values(), Latent(mode="learned", most=1)]
    depth = Depth(draft=draft, confidence=0.0)
    found = engine.generate([PROMPTS[0]] * len(modes), None, depth, modes, sampling(0.7))
    for mode, result in zip(modes, found, strict=True):
        [alone] = engine.generate(PROMPTS[:1], None, PLAIN, mode, sampling(0.7))
        assert said(result) == said(alone)
    assert len({len(latents(result)) for result in found}) == len(modes)


@pytest.mark.parametrize("objective", ["speed", "matchness"])
@unchecked()
def test_while_a_layer_set_is_looked_for(objective, monkeypatch):
    """Candidates are tried on the last tokens, latents with their vectors among them."""
    monkeypatch.setattr("sparing.depth.speed_search.SHARE", 1e9)
    engine = thinker(thinking(source=planted()))
    engine.drafting.forget()
    engine.drafting.sets = {}
    many, unsure = sampling(0.7, max_new_tokens=160), Latent(mode="confidence", tau=0.4, most=90)
    plain = engine.generate(PROMPTS[:1], None, PLAIN, unsure, many)
    depth = Depth(draft="layers", objective=objective, interval=8, window=16, confidence=0.0)
    found = engine.generate(PROMPTS[:1], None, depth, unsure, many)
    assert [said(a) for a in found] == [said(b) for b in plain]
    assert len(latents(found[0])) > 50
    tried = [e for r in found for e in r.events if e.type == "layers" and e.matchness > 0]
    assert tried


@pytest.mark.parametrize("mode", MODES)
@unchecked()
def test_drafts_that_know_what_is_said(mode):
    """Through every latent, or wrong, or as trees; a latent ends each of them."""
    engine = thinker(thinking())
    plain = answers(engine, MODES[mode])
    texts = [result.prompt_token_ids + result.token_ids for result in plain]
    for drafter in all_drafters(texts).values():
        switch = find_switch(MODES[mode], engine.latents, engine.decoder, engine.chat.tokenizer)
        found = run(engine, PROMPTS, sampling(), switch=switch, drafter=drafter)
        assert [said(a) for a in found] == [said(b) for b in plain]


@pytest.mark.parametrize("mode", MODES)
@unchecked()
def test_latents_are_scored_and_evicted_like_any_thought(mode):
    """With a predictor: its scores decide, drafting or not, and latents are among what goes."""
    bare = thinker(thinking())
    predictor = random_predictor(bare.decoder.shape.width, dtype=torch.float64)
    engine = Engine(bare.decoder, bare.chat, "thinker", predictor, None, bare.latents)
    memory = [m.model_copy(update={"policy": "learned"}) for m in EVICTING]
    plain = answers(engine, MODES[mode], memory=memory)
    gone = [
        p in latents(r) for r in plain for e in r.events if isinstance(e, EvictEvent)
        for p in e.positions
    ]  # fmt: skip
    assert set(gone) == {True, False}, "latents go, and words"
    found = answers(engine, MODES[mode], Depth(draft="lookup"), memory)
    assert [said(a) for a in found] == [said(b) for b in plain]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
@unchecked()
def test_neither_the_batch_nor_streaming_matters(mode, temperature):
    engine = thinker(thinking())
    together = answers(engine, MODES[mode], temperature=temperature)
    for prompt, result in zip(PROMPTS, together, strict=True):
        stream = engine.stream(prompt, None, PLAIN, MODES[mode], sampling(temperature))
        events = list(stream)
        assert said(stream.result()) == said(result)
        assert [e.position for e in events if isinstance(e, LatentEvent)] == latents(result)


def test_off_never_says_the_token():
    engine = thinker(thinking())
    token = engine.latents[0].id
    for temperature in (0.0, 1.0):
        for result in answers(engine, None, temperature=temperature):
            assert token not in result.token_ids
            assert not latents(result)


def test_confidence_thinks_where_the_model_is_unsure():
    """At every word: latents before it where its top-1 probability is low, unless capped."""
    engine = thinker(thinking())
    wanted = Latent(mode="confidence", tau=0.3, in_a_row=3, most=12)
    for result in answers(engine, wanted):
        total = in_a_row = 0
        for event in result.events:
            if isinstance(event, LatentEvent):
                total, in_a_row = total + 1, in_a_row + 1
                assert in_a_row <= 3
                assert total <= 12
            elif isinstance(event, TokenEvent):
                assert event.confidence >= 0.3 or in_a_row == 3 or total == 12
                in_a_row = 0
        assert total == 12


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@unchecked()
def test_learned_is_capped(temperature):
    """Beyond a cap the token is not picked; with a cap of none it is as if latents were off."""
    engine = thinker(thinking())
    for in_a_row, most in ((1, 20), (3, 20), (2, 4), (2, 0)):
        wanted = Latent(mode="learned", in_a_row=in_a_row, most=most)
        results = answers(engine, wanted, temperature=temperature)
        assert any(latents(result) for result in results) == (most > 0)
        for result in results:
            at = latents(result)
            assert len(at) <= most
            assert engine.latents[0].id not in result.token_ids
            runs = [p for p in at if all(p - back in at for back in range(in_a_row + 1))]
            assert not runs
    none = answers(engine, wanted, temperature=temperature)
    assert [r.token_ids for r in none] == [
        r.token_ids for r in answers(engine, None, temperature=temperature)
    ]


def test_a_latent_is_told_with_its_words():
    engine = thinker(thinking())
    [result, *_] = answers(engine, UNSURE)
    events = [e for e in result.to_dict(events=True)["events"] if e["type"] == "latent"]
    assert len(events) == result.stats.latent_tokens == len(latents(result))
    for event in events:
        words, shares = zip(*event["top"], strict=True)
        assert 1 <= len(words) <= 3
        assert all(isinstance(word, str) for word in words)
        assert list(shares) == sorted(shares, reverse=True)
        assert 0 < sum(shares) <= 1 + 1e-9


def test_latents_count_against_the_limit_of_new_tokens():
    engine = thinker(thinking())
    for result in answers(engine, UNSURE):
        assert result.finish_reason == "length"
        assert result.stats.new_tokens + result.stats.latent_tokens == COUNT


def test_refused_in_one_line():
    engine = thinker(thinking())
    without = Engine(engine.decoder, engine.chat, "plain")
    for mode in ("learned", "confidence"):
        with pytest.raises(OptionError, match="needs a model with learned latent steps"):
            answers(without, Latent(mode=mode))
    ignoring = thinker(thinking(targets="ignore"))
    with pytest.raises(OptionError, match="trained to ignore it; pass latent confidence"):
        answers(ignoring, Latent(mode="learned"))
    assert answers(ignoring, Latent(mode="confidence"))
    with pytest.raises(PromptError, match="a prompt must do without <thinking>"):
        engine.generate(["think <thinking> about it"])


def test_options_that_do_not_go_together():
    for wrong in ({"tau": 0.5}, {"most": 3}, {"mode": "learned", "tau": 0.5}, {"in_a_row": 1}):
        with pytest.raises(OptionError, match="needs latent"):
            Latent(**wrong)
    for wrong in ({"mode": "often"}, {"mode": "learned", "in_a_row": 0}, {"tau": 2.0}):
        with pytest.raises(OptionError):
            Latent(**wrong)
