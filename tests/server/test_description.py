"""The OpenAPI description, and whether the server keeps to it whatever is asked (schemathesis)."""

import os
from urllib.parse import parse_qsl, urlsplit

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from sparing.api import load
from sparing.options import Sampling
from sparing.server.settings import RequestDefaults, ServerConfig
from tests.server.live import live
from tests.tiny import checkpoint


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model whose answers are short: its context is."""
    path = checkpoint(tmp_path_factory.mktemp("small"), "llama", max_position_embeddings=64)
    defaults = RequestDefaults(sampling=Sampling(max_new_tokens=4))
    with live(load(path), ServerConfig(api_key="k"), defaults) as server:
        yield server
        server.settle()


EXAMPLES = int(os.environ.get("SPARING_EXAMPLES", 60))
KEY = {"authorization": "Bearer k"}
OPERATIONS = [
    "POST /v1/chat/completions",
    "POST /v1/completions",
    "GET /v1/models",
    "GET /v1/models/{id}",
    "GET /v1/examples",
    "GET /v1/runs/{id}",
    "GET /v1/runs/{id}/events",
    "POST /v1/runs/{id}/cancel",
    "GET /health",
    "GET /metrics",
]


TAKE = ("POST /v1/chat", "POST /v1/completions", "GET /v1/examples", "GET /v1/runs/{id}/events")
CAN_BE_WRONG = [name for name in OPERATIONS if name.startswith(TAKE)]  # the others take nothing
PLAIN = {  # what can be answered for certain
    "POST /v1/chat/completions": {"messages": [{"role": "user", "content": "x"}]},
    "POST /v1/completions": {"prompt": "x"},
}
CASES = [(name, GenerationMode.POSITIVE) for name in OPERATIONS]
CASES += [(name, GenerationMode.NEGATIVE) for name in CAN_BE_WRONG]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mode"), CASES)
def test_whatever_is_asked_the_answer_is_as_described(small, name, mode):
    """Requests that follow the description may still be refused: it does not say that a prompt must
    fit, nor which fields go together."""
    statuses, taken = set(), set()
    schema = schemathesis.openapi.from_url(f"{small.url}/openapi.json", headers=KEY)
    method, path = name.split(" ")
    excluded = [schemathesis.checks.CHECKS.get_one("positive_data_acceptance")]

    def ask(case):
        reply = case.call_and_validate(headers=KEY, excluded_checks=excluded)
        statuses.add(reply.status_code)
        if reply.status_code == 200:
            taken.add(reply.request.url)

    @given(schema[path][method].as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    def asked(case):
        ask(case)

    asked()
    if name in PLAIN and mode == GenerationMode.POSITIVE:
        body = {"model": small.service.model} | PLAIN[name]
        ask(schema[path][method].Case(body=body, media_type="application/json"))
    if mode == GenerationMode.POSITIVE:
        assert (200 in statuses) == ("{id}" not in name), statuses
    else:
        assert method == "GET" or not taken
        assert all(right_as_sent(url) for url in taken), taken


def right_as_sent(url):
    """Whether a query is right that was meant to be wrong: an empty list vanishes on the wire, a
    list of one is what it holds. Of several seeds the last counts."""
    sent = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    return {name for name, _ in sent} <= {"seed"} and all(
        float(seed).is_integer() for _, seed in sent[-1:]
    )


def test_every_operation_is_described(small):
    found = small.ask("GET", "/openapi.json", **KEY).json
    names = {f"{m.upper()} {path}" for path, methods in found["paths"].items() for m in methods}
    assert names == set(OPERATIONS)
    chat = found["components"]["schemas"]["ChatRequest"]
    assert chat["additionalProperties"] is False
    assert chat["properties"]["model"]["enum"] == [small.service.model]
    assert {"budget", "policy"} < set(found["components"]["schemas"]["Memory"]["properties"])
