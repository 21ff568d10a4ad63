"""What comes in: keys, bodies of every wrong kind, limits, and that the server outlives them."""

import json
import socket
import time

import openai
import pytest

from sparing.options import Memory, Sampling
from sparing.server.settings import RequestDefaults, ServerConfig
from tests.server.live import live
from tests.server.wire import ASKED
from tests.tiny import engine, tiny

CHAT = "/v1/chat/completions"


def well(server):
    """It still answers."""
    found = server.client().chat.completions.create(**ASKED, max_completion_tokens=2)
    return found.usage.completion_tokens == 2


GARBAGE = {
    "nothing": b"",
    "not JSON": b"{",
    "a list": b"[1]",
    "a word": b'"hi"',
    "null": b"null",
    "not UTF-8": b'{"model": "\xff"}',
    "bytes": bytes(range(256)),
    "half a pair": b'{"model": "pocket", "messages": [{"role": "user", "content": "\\ud800"}]}',
    "half a pair as name": b'{"model": "pocket", "\\ud800": 1, "messages": []}',
    "half a pair as model": b'{"model": "\\ud800", "messages": [{"role":"user","content":"x"}]}',
    "deep": b'{"model": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "a long number": b'{"model": "pocket", "seed": ' + b"9" * 5000 + b"}",
    "NaN": b'{"model": "pocket", "messages": [{"role":"user","content":"x"}], "temperature": NaN}',
    "1e999": b'{"model":"pocket","messages":[{"role":"user","content":"x"}],"temperature":1e999}',
}


@pytest.mark.parametrize("body", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_refused_in_openais_shape(server, body):
    reply = server.ask("POST", CHAT, body)
    assert reply.status in (400, 404), reply.body
    assert set(reply.json["error"]) == {"message", "type", "param", "code"}
    assert well(server)


def test_a_body_that_is_no_json_by_its_type(server):
    reply = server.ask("POST", CHAT, json.dumps(ASKED).encode(), content_type="text/plain")
    assert reply.status == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v2", 404), ("GET", CHAT, 405), ("POST", "/health", 405), ("GET", "/v3", 404)],
)
def test_no_such_path_or_method(server, method, path, status):
    reply = server.ask(method, path)
    assert reply.status == status
    assert reply.json["error"]["type"] == "invalid_request_error"


def test_a_key_is_asked_for_where_there_is_one(pocket):
    with live(pocket, ServerConfig(api_key="s3cret")) as server:
        assert well(server)
        for given in ("wrong", "s3cre", "s3cret2"):
            with pytest.raises(openai.AuthenticationError, match="an API key must be given"):
                server.client(api_key=given).models.list()
        assert server.ask("GET", "/v1/models").status == 401
        assert server.ask("GET", "/metrics").status == 401
        assert server.ask("POST", CHAT, ASKED).status == 401
        assert server.ask("GET", "/health").status == 200


@pytest.mark.parametrize("size", [1001, 100_000])
def test_a_body_that_is_too_large(pocket, size):
    with live(pocket, ServerConfig(body_bytes=1000)) as server:
        reply = server.ask("POST", CHAT, b"x" * size)
        assert reply.status == 413
        assert "at most 1000 bytes" in reply.json["error"]["message"]
        assert well(server)


def test_a_body_that_comes_too_slowly_and_a_head_that_does_not_end(pocket):
    with live(pocket, ServerConfig(body_s=0.5)) as server:
        slow, silent, half = (
            socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(3)
        )
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        slow.sendall(f"{head}content-length: 500\r\n\r\n{{".encode())
        half.sendall(head.encode())
        begun = time.monotonic()
        answer = b""
        while part := slow.recv(1 << 16):
            answer += part
        assert b"408" in answer.split(b"\r\n")[0]
        assert b"must arrive within 0.5 s" in answer
        assert silent.recv(1) == half.recv(1) == b""
        assert time.monotonic() - begun < 10
        assert well(server)
        for connection in (slow, silent, half):
            connection.close()


def test_a_prompt_that_is_too_long_for_this_server(pocket):
    with live(pocket, ServerConfig(prompt_tokens=30)) as server:
        reply = server.ask("POST", CHAT, ASKED)
        assert reply.status == 400
        assert "at most 30 tokens here, got 43" in reply.json["error"]["message"]
        assert reply.json["error"]["code"] == "context_length_exceeded"


def test_a_request_that_could_never_fit_and_the_way_it_does(pocket):
    with live(pocket, ServerConfig(kv_bytes=8192 * 300)) as server:
        reply = server.ask("POST", CHAT, ASKED)
        assert reply.status == 400
        assert "at most 300 tokens" in reply.json["error"]["message"]
        memory = {"sparing": {"memory": {"budget": 200}}}
        assert server.ask("POST", CHAT, ASKED | memory).status == 200
        assert server.ask("POST", CHAT, ASKED | {"max_tokens": 100}).status == 200


def test_a_full_queue_says_when_to_come_again(pocket):
    with live(pocket, ServerConfig(rows=1, queue=1)) as server:
        endless = ASKED | {
            "stream": True,
            "extra_body": {"sparing": {"sampling": {"ignore_eos": True}}},
        }
        streams = [server.client().chat.completions.create(**endless) for _ in range(2)]
        for stream in streams:
            next(iter(stream))
        with pytest.raises(openai.RateLimitError) as caught:
            server.client().chat.completions.create(**ASKED)
        assert caught.value.response.headers["retry-after"] == "1"
        too_many = server.ask("POST", CHAT, ASKED | {"n": 3})
        assert too_many.status == 400
        assert "at most 2 choices" in too_many.json["error"]["message"]
        for stream in streams:
            stream.close()
        server.settle()
        assert server.ended("cancelled") == 2
        assert well(server)


def test_a_request_that_takes_too_long(pocket):
    endless = ASKED | {"max_tokens": 3000, "sparing": {"sampling": {"ignore_eos": True}}}
    endless["sparing"]["depth"] = {"draft": "off"}
    with live(pocket, ServerConfig(request_s=0.3)) as server:
        reply = server.ask("POST", CHAT, endless)
        assert reply.status == 504
        assert reply.json["error"]["code"] == "timeout"
        streamed = server.ask("POST", CHAT, endless | {"stream": True})
        assert streamed.status == 200
        *_, last = [b for b in streamed.body.split(b"\n\n") if b.startswith(b"data: ")]
        assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "timeout"
        server.settle()
        assert server.ended("failed") == 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_row(server, stream):
    before = server.ended("cancelled")
    endless = ASKED | {"stream": stream, "sparing": {"sampling": {"ignore_eos": True}}}
    body = json.dumps(endless | {"max_tokens": 4000}).encode()
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    until = time.monotonic() + 20
    while not server.service.scheduler.live:
        assert time.monotonic() < until
        time.sleep(0.01)
    connection.close()
    server.settle()
    assert server.ended("cancelled") == before + 1
    assert well(server)


def test_layers_cannot_be_left_out_of_a_model_of_two():
    small = engine(tiny("llama", num_hidden_layers=2), "float32")
    asked = {"model": small.name, "messages": [{"role": "user", "content": "x"}], "max_tokens": 3}
    with live(small) as server:
        reply = server.ask("POST", CHAT, asked | {"sparing": {"depth": {"draft": "layers"}}})
        assert reply.status == 400
        assert "sparing.depth.draft layers needs" in reply.json["error"]["message"]
        for draft in ("auto", "lookup", "off"):
            more = {"sparing": {"depth": {"draft": draft}}}
            assert server.ask("POST", CHAT, asked | more).status == 200


def test_a_servers_own_defaults(pocket):
    defaults = RequestDefaults(
        memory=Memory(budget=150), sampling=Sampling(temperature=0.0, max_new_tokens=300)
    )
    with live(pocket, defaults=defaults) as server:
        asked = {name: ASKED[name] for name in ("model", "messages")}
        spared = server.client().chat.completions.create(**asked).choices[0]
        whole = (
            server.client()
            .chat.completions.create(**asked, extra_body={"sparing": {"memory": {}}})
            .choices[0]
        )
    assert spared.sparing["stats"]["policy"] == "learned"
    assert whole.sparing["stats"]["policy"] == "full"
    assert spared.sparing["seed"] == 0, "greedy, as the server says"


def test_health_and_metrics_tell_what_happened(pocket):
    with live(pocket) as server:
        health = server.ask("GET", "/health").json
        assert health["status"] == "ok"
        assert health["kv_bytes"] == 0
        assert health["kv_bytes_limit"] == 1 << 30
        found = server.client().chat.completions.create(**ASKED)
        server.ask("POST", CHAT, b"{")
        reply = server.ask("GET", "/metrics")
    text = reply.body.decode()
    assert reply.headers["content-type"].startswith("text/plain")
    assert 'sparing_requests_total{outcome="finished"} 1.0' in text
    assert 'sparing_refused_total{status="400"} 1.0' in text
    stats = found.choices[0].sparing["stats"]
    assert f'sparing_tokens_total{{kind="thought"}} {stats["thinking_tokens"]}.0' in text
    assert f"sparing_drafted_tokens_total {stats['drafted']}.0" in text
    assert "sparing_first_token_seconds_count 1.0" in text
    assert "sparing_kv_bytes 0.0" in text
