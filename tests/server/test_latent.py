"""Requests that think without words, beside others that spell everything out."""

from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from sparing import Latent, Sampling
from sparing.server.settings import Defaults
from tests.latent.thinking import thinker, thinking
from tests.server.live import live
from tests.server.test_runs import events_of
from tests.tiny import unchecked

MODES = {
    "off": {"mode": "off"},
    "learned": {"mode": "learned", "most": 12},
    "confidence": {"mode": "confidence", "tau": 0.4},
}
QUESTION = [{"role": "user", "content": "so, 7 + 9"}]


@pytest.fixture(scope="module")
def model():
    return thinker(thinking())


@pytest.fixture(scope="module")
def thinks(model):
    with unchecked(), live(model, defaults=Defaults(latent=Latent(mode="confidence"))) as found:
        yield found
        found.settle()


def asked(mode, **more):
    savings = {"latent": MODES[mode], "sampling": {"ignore_eos": True}}
    return {
        "model": "",
        "messages": QUESTION,
        "temperature": 0.7,
        "seed": 3,
        "max_completion_tokens": 60,
        "extra_body": {"sparing": savings | more},
    }


def alone(model, mode):
    sampling = Sampling(temperature=0.7, seed=3, max_new_tokens=60, ignore_eos=True)
    [result] = model.generate([QUESTION], None, None, Latent(**MODES[mode]), sampling)
    return result


def test_each_thinks_as_it_asked_among_the_others(thinks, model):
    """Six at once, two of each mode."""
    client = thinks.client()
    modes = list(MODES) * 2

    def ask(mode):
        return client.chat.completions.create(**asked(mode) | {"model": model.name})

    with ThreadPoolExecutor(len(modes)) as pool:
        found = list(pool.map(ask, modes))
    for mode, answer in zip(modes, found, strict=True):
        expected = alone(model, mode)
        message, stats = answer.choices[0].message, answer.choices[0].sparing["stats"]
        assert (message.reasoning_content or "") == expected.thinking
        assert message.content == expected.answer
        assert stats["latent_tokens"] == expected.stats.latent_tokens
        assert (stats["latent_tokens"] > 0) == (mode != "off")


def test_the_events_tell_the_words_of_a_latent(thinks, model):
    answer = thinks.client().chat.completions.create(**asked("confidence") | {"model": model.name})
    expected = [e for e in alone(model, "confidence").events if e.type == "latent"]
    told = [content for _, name, content in events_of(thinks, answer.id) if name == "latent"]
    assert [latent["position"] for latent in told] == [e.position for e in expected]
    assert [dict(latent["top"]) for latent in told] == [
        pytest.approx(dict(e.top)) for e in expected
    ]
    assert len(told) > 2


def test_by_default_as_the_server_was_told(thinks, model):
    plain = asked("off")["extra_body"]["sparing"] | {"latent": None}
    body = asked("off") | {"model": model.name, "extra_body": {"sparing": plain}}
    answer = thinks.client().chat.completions.create(**body)
    sampling = Sampling(temperature=0.7, seed=3, max_new_tokens=60, ignore_eos=True)
    [expected] = model.generate([QUESTION], None, None, Latent(mode="confidence"), sampling)
    assert answer.choices[0].sparing["stats"]["latent_tokens"] == expected.stats.latent_tokens > 2


def test_a_model_without_is_refused_by_name(server):
    body = asked("learned") | {"model": "pocket"}
    with pytest.raises(openai.BadRequestError, match="needs a model that has learned latent steps"):
        server.client().chat.completions.create(**body)
