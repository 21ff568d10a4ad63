"""Latent steps over HTTP: as the engine's, each request in its own way."""

import threading

import openai
import pytest

from sparing.errors import OptionError
from sparing.options import Latent, Memory, Sampling
from sparing.server.service import Service
from sparing.server.settings import RequestDefaults
from tests.cli.command import assert_one_line
from tests.latent.thinking import thinker, thinking
from tests.server.live import live
from tests.server.test_runs import events_of

MODES = {
    "off": Latent(),
    "learned": Latent(mode="learned", most=12),
    "confidence": Latent(mode="confidence", tau=0.4, most=12),
}
QUESTION = [{"role": "user", "content": "so, 7 + 9 is"}]
SAMPLING = Sampling(temperature=0, max_new_tokens=40, ignore_eos=True)


@pytest.fixture(scope="module")
def deep():
    """A model that thinks latent steps."""
    return thinker(thinking(), "float32")


@pytest.fixture(scope="module")
def served(deep):
    with live(deep) as server:
        yield server
        server.settle()


def ask(server, mode, budget=None):
    sparing = {
        "latent": MODES[mode].model_dump(exclude_defaults=True),
        "memory": {"budget": budget},
        "sampling": {"ignore_eos": True},
    }
    return server.client().chat.completions.create(
        model=server.service.model,
        messages=QUESTION,
        temperature=0,
        max_completion_tokens=40,
        extra_body={"sparing": sparing},
    )


def said(deep, mode, budget=None):
    """What the engine says by itself: its stats' counts and its answer."""
    [result] = deep.generate([QUESTION], Memory(budget=budget), None, MODES[mode], SAMPLING)
    return result


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("budget", [None, 60])
def test_they_are_the_engines(served, deep, mode, budget):
    found, expected = ask(served, mode, budget), said(deep, mode, budget)
    events = [e for _, name, e in events_of(served, found.id) if name in ("token", "latent")]
    told = [(e["type"], e["position"], e.get("id")) for e in events]
    steps = [e.to_dict() for e in expected.events if e.type in ("token", "latent")]
    assert told == [(e["type"], e["position"], e.get("id")) for e in steps]
    stats = found.choices[0].sparing["stats"]
    assert stats["latent_tokens"] == expected.stats.latent_tokens
    assert (stats["latent_tokens"] > 0) == (mode != "off")
    assert all(1 <= len(e["top"]) <= 3 for e in events if e["type"] == "latent")


def test_each_thinks_as_it_asked_among_the_others(served, deep):
    modes = [*MODES, *MODES] * 2
    answers: dict[int, str] = {}

    def one(number: int, mode: str) -> None:
        found = ask(served, mode)
        answers[number] = "".join(
            e["text"] for _, name, e in events_of(served, found.id) if name in ("token", "done")
        )

    threads = [threading.Thread(target=one, args=pair) for pair in enumerate(modes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    expected = {mode: said(deep, mode).text for mode in MODES}
    assert [answers[number] for number in range(len(modes))] == [expected[mode] for mode in modes]


def test_a_server_may_think_so_by_default(deep):
    with live(deep, None, RequestDefaults(latent=MODES["confidence"])) as server:
        told = server.ask("GET", "/v1/models").json["data"][0]["sparing"]
        assert told["latents"] == ["off", "learned", "confidence"]
        assert told["latent"] == "confidence"
        found = server.client().chat.completions.create(
            model=server.service.model, messages=QUESTION, max_completion_tokens=40, temperature=0
        )
        assert found.choices[0].sparing["stats"]["latent_tokens"] > 0
        server.settle()


def test_options_that_do_not_go_together_are_refused(served):
    with pytest.raises(openai.BadRequestError, match="tau needs latent confidence"):
        served.client().chat.completions.create(
            model=served.service.model,
            messages=QUESTION,
            extra_body={"sparing": {"latent": {"mode": "learned", "tau": 0.5}}},
        )


def test_a_model_without_is_refused_by_name(server):
    with pytest.raises(openai.BadRequestError, match="learned latent steps") as caught:
        server.client().chat.completions.create(
            model="pocket",
            messages=QUESTION,
            extra_body={"sparing": {"latent": {"mode": "learned"}}},
        )
    assert caught.value.param == "sparing.latent"


def test_a_model_that_cannot_is_not_served_so(pocket, sparing):
    with pytest.raises(OptionError, match="needs a model with learned latent steps"):
        Service(pocket, None, RequestDefaults(latent=Latent(mode="learned")))
    outcome = sparing("serve", "--latent", "learned", "--port", 0)
    assert_one_line(outcome, "latent learned needs a model with learned latent steps")
