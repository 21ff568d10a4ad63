"""What stands around the routes: paths, content types, names, ids, log lines, other origins."""

import json
import logging

import pytest

from sparing.errors import OptionError
from sparing.server.service import names
from sparing.server.settings import ServerConfig
from tests.server.live import live, until
from tests.server.saying import saying
from tests.server.wire import ASKED

CHAT = "/v1/chat/completions"
SHORT = ASKED | {"max_tokens": 2}


@pytest.mark.parametrize("path", [CHAT, f"{CHAT}/", "/chat/completions", "/chat/completions/"])
def test_paths_with_a_slash_and_without_v1_are_answered_themselves(server, path):
    assert server.ask("POST", path, SHORT).status == 200


def test_other_paths_with_a_slash(server):
    for path in ("/v1/models/", "/models", "/health/", "/v1/models/pocket/"):
        assert server.ask("GET", path).status == 200
    asked = {"model": "pocket", "prompt": "a", "max_tokens": 2}
    assert server.ask("POST", "/completions", asked).status == 200
    assert server.ask("GET", "/v1/").status == 404


def test_a_body_without_a_type_is_json_and_one_of_another_is_told_the_header(server):
    body = json.dumps(SHORT).encode()
    assert server.ask("POST", CHAT, body, content_type="").status == 200
    assert server.ask("POST", CHAT, body, content_type="application/json; charset=x").status == 200
    for kind in ("application/x-www-form-urlencoded", "text/plain"):
        error = server.ask("POST", CHAT, body, content_type=kind).json["error"]
        said = f"content-type must be application/json, got '{kind}'; send that header"
        assert error["message"] == said
        assert error["code"] == "bad_content_type"


def test_a_request_id_comes_back_and_is_the_runs_without_one(server):
    for method, path, body, status in (
        ("POST", CHAT, SHORT, 200),
        ("POST", CHAT, SHORT | {"stream": True}, 200),
        ("POST", CHAT, SHORT | {"n": 0}, 400),
        ("GET", "/v1/models", None, 200),
        ("GET", "/nowhere", None, 404),
    ):
        reply = server.ask(method, path, body, x_request_id="mine-1")
        assert (reply.status, reply.headers["x-request-id"]) == (status, "mine-1")
    reply = server.ask("POST", CHAT, SHORT)
    assert reply.headers["x-request-id"] == reply.json["id"]


def test_each_request_is_a_line(server, caplog):
    caplog.set_level(logging.INFO, "sparing")
    usage = server.ask("POST", CHAT, SHORT).json["usage"]
    server.ask("POST", CHAT, SHORT | {"stream": True})
    server.ask("POST", CHAT, SHORT | {"n": 0})
    server.ask("GET", "/v1/no%0Awhere")
    until(lambda: len(caplog.records) == 4)  # a line follows its answer
    lines = [record.message for record in caplog.records]
    tokens = f"{usage['prompt_tokens']}+{usage['completion_tokens']} tokens"
    assert all(line.startswith(f"POST {CHAT} 200 {tokens} 0.") for line in lines[:2])
    assert lines[2].startswith(f"POST {CHAT} 400 0.")
    assert lines[2].endswith("s: n must be greater than or equal to 1, got 0")
    assert lines[3].startswith("GET /v1/no%0Awhere 404 0.")


def test_a_failure_within_a_stream_is_a_warning(pocket, caplog):
    caplog.set_level(logging.WARNING, "sparing")
    endless = SHORT | {"max_tokens": 3000, "ignore_eos": True, "stream": True}
    with live(pocket, ServerConfig(request_s=0.2)) as server:
        server.ask("POST", CHAT, SHORT)
        server.ask("POST", CHAT, endless | {"sparing": {"depth": {"draft": "off"}}})
        until(lambda: caplog.records)
    [line] = [record.message for record in caplog.records]
    assert line.startswith(f"POST {CHAT} 200 ")
    assert "a request must end within 0.2 s" in line


def test_a_path_is_served_under_its_last_component(tmp_path):
    path = str(tmp_path / "some model")
    with live(saying(tmp_path / "some model", ["Ġ", "so"])) as server:
        assert [model.id for model in server.client().models.list()] == ["some model"]
        for name in ("some model", path):
            reply = server.ask("POST", CHAT, SHORT | {"model": name})
            assert (reply.status, reply.json["model"]) == (200, "some model")
            assert server.ask("GET", f"/v1/models/{name.replace(' ', '%20')}").status == 200
    (tmp_path / "link").symlink_to(path)
    assert names(f"{tmp_path}/link/", None) == ["link", f"{tmp_path}/link/"]
    assert names("Qwen/Qwen3-0.6B", None) == ["Qwen/Qwen3-0.6B"]
    assert names(path, "mine") == ["mine"]


def test_a_name_of_its_own(pocket):
    with live(pocket, ServerConfig(served_model_name="mine")) as server:
        assert server.ask("POST", CHAT, SHORT | {"model": "mine"}).json["model"] == "mine"
        error = server.ask("POST", CHAT, SHORT).json["error"]
        assert error["message"] == "model must be mine, got 'pocket'; pass that name"


ORIGIN = "https://chat.example"
ASKS = {"origin": ORIGIN, "access_control_request_method": "POST"}


def test_pages_elsewhere_may_not_use_it_unless_named(server, pocket):
    assert server.ask("OPTIONS", CHAT, None, **ASKS).status == 405
    config = ServerConfig(cors_origins=(ORIGIN,), api_key="k")
    with live(pocket, config) as named:
        before = named.ask("OPTIONS", CHAT, None, **ASKS)
        assert before.status == 200
        assert before.headers["access-control-allow-origin"] == ORIGIN
        refused = named.ask("POST", CHAT, SHORT, origin=ORIGIN)  # without the key
        assert refused.status == 401
        assert refused.headers["access-control-allow-origin"] == ORIGIN
        other = named.ask("OPTIONS", CHAT, None, **ASKS | {"origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("origin", ["chat.example", "https://chat.example/", ""])
def test_an_origin_is_a_scheme_and_a_host(origin):
    with pytest.raises(OptionError, match="cors_origins must be"):
        ServerConfig(cors_origins=(origin,))


def test_no_answer_names_a_flag(pocket):
    with live(pocket, ServerConfig(prompt_tokens=2000, kv_bytes=8192 * 1500)) as server:
        words = ["7 " * 500, "7 " * 2100, "7 " * 5000]
        sparing = [{"memory": {"budget": 20}}, {"latent": {"mode": "learned"}}, {}]
        for text in words:
            for own in sparing:
                body = {"messages": [{"role": "user", "content": text}], "sparing": own}
                reply = server.ask("POST", CHAT, ASKED | body)
                error = reply.json.get("error", {"message": ""})
                assert "--" not in error["message"]
                assert "`" not in error["message"]
                if reply.status != 200 and "latent" not in own:
                    assert error["code"] == "context_length_exceeded"
