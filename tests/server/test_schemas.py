"""What is said of the model, of a run, and the questions to begin with."""

import shutil

import pytest

from sparing.api import load
from sparing.model.sources import POCKET
from sparing.options import Depth, Memory, Sampling
from sparing.server.examples import GENERIC, RECORDED, examples
from sparing.server.settings import RequestDefaults
from sparing.tasks.families import FAMILIES
from sparing.tasks.gym import entries
from sparing.tasks.splits import training_questions
from sparing.tasks.wording import key, wording
from tests.server.live import live
from tests.server.wire import ASKED
from tests.tiny import engine, tiny


def test_what_pocket_can_spare(server, pocket):
    [model] = server.ask("GET", "/v1/models").json["data"]
    told = model["sparing"]
    assert {"auto", "learned", "window", "rkv"} < set(told["policies"])
    assert "full" not in told["policies"]
    assert told["drafts"] == ["auto", "off", "lookup", "layers", "hybrid"]
    assert set(told["policies"]) <= set(told["labels"]["memory"])
    assert set(told["drafts"]) == set(told["labels"]["depth"])
    assert told["slot_bytes"] == server.service.scheduler.loop.cache.slot_bytes
    assert told["layers"] == pocket.decoder.shape.layers
    assert told["max_new_tokens"] == 2048
    assert told["thoughts"] is True
    assert server.client().models.list().data[0].sparing == told


def test_what_a_model_without_predictor_cannot_and_a_servers_own_defaults():
    defaults = RequestDefaults(
        memory=Memory(budget=40, policy="window"),
        depth=Depth(draft="lookup"),
        sampling=Sampling(max_new_tokens=7),
    )
    with live(engine(tiny("llama", num_hidden_layers=2)), None, defaults) as server:
        told = server.ask("GET", "/v1/models").json["data"][0]["sparing"]
    assert not {"learned", "bottom"} & set(told["policies"])
    assert told["why_not"]["memory"].endswith("got one without; use window")
    assert told["drafts"] == ["auto", "off", "lookup"]
    assert told["memory"]["budget"] == 40
    assert (told["draft"], told["max_new_tokens"]) == ("lookup", 7)


def test_whatever_is_offered_can_be_asked_for_and_nothing_else(server):
    told = server.ask("GET", "/v1/models").json["data"][0]["sparing"]
    asked = ASKED | {"max_completion_tokens": 1}
    for policy in told["policies"]:
        sparing = {"memory": {"budget": 100, "policy": policy}}
        assert (
            server.ask("POST", "/v1/chat/completions", asked | {"sparing": sparing}).status == 200
        )
    for mode in ("off", "learned", "confidence"):
        sparing = {"latent": {"mode": mode}}
        reply = server.ask("POST", "/v1/chat/completions", asked | {"sparing": sparing})
        assert (reply.status == 200) == (mode in told["latents"])
    assert told["latents"] == ["off"]
    assert told["why_not"]["latent"].startswith("latent learned needs a model with learned")


def test_a_run_as_it_was_let_in(server, pocket):
    sparing = {"memory": {"budget": 0.25}}
    found = server.client().chat.completions.create(
        **ASKED, n=2, max_completion_tokens=400, extra_body={"sparing": sparing}
    )
    told = server.ask("GET", f"/v1/runs/{found.id}").json
    assert (told["id"], told["status"], told["model"]) == (found.id, "ended", "pocket")
    ids = pocket.chat.encode(ASKED["messages"]).ids
    for choice, answered in zip(told["choices"], found.choices, strict=True):
        assert [token["id"] for token in choice["prompt"]] == ids
        text = "".join(token["text"] for token in choice["prompt"])
        assert text == pocket.chat.tokenizer.decode(ids, skip_special_tokens=False)
        assert choice["budget"] == choice["slots"] == len(ids) + 100
        assert choice["policy"] == "learned"
        assert choice["stats"] == answered.sparing["stats"]
        assert choice["seed"] == answered.sparing["seed"]
        assert choice["finish_reason"] == "stop"


def test_a_run_that_goes_on(server):
    chunks = server.client().chat.completions.create(
        **ASKED, stream=True, extra_body={"sparing": {"sampling": {"ignore_eos": True}}}
    )
    first = next(iter(chunks))
    told = server.ask("GET", f"/v1/runs/{first.id}").json
    assert told["status"] in ("waiting", "live")
    assert told["choices"][0]["finish_reason"] is None
    assert told["choices"][0]["budget"] is None
    chunks.close()
    server.settle()


def test_a_run_that_nobody_knows(server):
    reply = server.ask("GET", "/v1/runs/chatcmpl-0")
    assert (reply.status, reply.json["error"]["code"]) == (404, "run_not_found")


def test_recorded_examples_are_those_of_seed_0_and_were_not_trained_on():
    for name, recorded in RECORDED.items():
        family = FAMILIES[name]
        [entry] = entries(family.dataset, family.standard, "test", 0, 1)
        assert wording(family.dataset, entry) == recorded
        assert key(family.dataset, entry) not in training_questions()


def test_examples_are_what_the_model_knows_one_of_each_family(server, pocket):
    told = server.ask("GET", "/v1/examples").json
    assert told == {"seed": 0, "questions": list(RECORDED.values()), "more": True}
    other = server.ask("GET", "/v1/examples?seed=7").json["questions"]
    assert len(other) == len(FAMILIES)
    assert not set(other) & set(RECORDED.values())
    assert all(pocket.chat.scope.outside(question) is None for question in other)
    assert other == server.ask("GET", "/v1/examples?seed=7").json["questions"]


def test_examples_of_another_model():
    assert list(examples(None, 3)) == list(GENERIC)


@pytest.mark.parametrize("query", ["seed=-1", "seed=x", f"seed={2**32}", "sead=1"])
def test_no_such_seed(server, query):
    reply = server.ask("GET", f"/v1/examples?{query}")
    assert reply.status == 400
    assert query.split("=")[0] in reply.json["error"]["message"]


def test_without_reasoning_gym_the_recorded_ones_are_there(server, monkeypatch):
    monkeypatch.setattr("sparing.server.examples.find_spec", lambda name: None)
    assert server.ask("GET", "/v1/examples").json["more"] is False


def test_a_model_that_knows_some_families_is_asked_those(tmp_path):
    shutil.copytree(POCKET, tmp_path / "some")
    scope = tmp_path / "some" / "scope.json"
    scope.write_text('{"questions": ["legs are there"], "notice": "unknown"}')
    chat = load(tmp_path / "some").chat
    assert list(examples(chat.scope, 0)) == [RECORDED["legs"]]
