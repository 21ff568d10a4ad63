"""/v1/runs: the engine's events of a request, while it goes on and for a while after."""

import json
import threading

import openai
import pytest

from sparing.engine.events import TokenEvent
from sparing.options import Sampling
from sparing.server.settings import ServerConfig
from tests.server.live import live
from tests.server.wire import ASKED


def events_of(server, run, **headers):
    """Numbers, names and contents of a run's events, to its end."""
    reply = server.ask("GET", f"/v1/runs/{run}/events", **headers)
    assert reply.status == 200, reply.body
    assert reply.headers["content-type"].startswith("text/event-stream")
    blocks = [b for b in reply.body.decode().split("\n\n") if b and not b.startswith(":")]
    found = []
    for block in blocks:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


def test_the_events_are_the_engines(server, pocket):
    [expected] = pocket.generate([ASKED["messages"]], sampling=Sampling(temperature=0))
    found = server.client().chat.completions.create(**ASKED)
    events = events_of(server, found.id)
    assert [number for number, _, _ in events] == list(range(len(events)))
    assert all(name == content["type"] for _, name, content in events)
    tokens = [content for _, name, content in events if name == "token"]
    assert [token["id"] for token in tokens] == expected.token_ids
    assert "".join(token["text"] for token in tokens) == expected.text
    fields = set(expected.events[0].to_dict())
    assert isinstance(expected.events[0], TokenEvent)
    assert all(set(token) == fields for token in tokens)
    assert [name for _, name, _ in events].count("done") == 1
    assert events[-1][2]["finish_reason"] == "stop"


def test_of_a_run_that_goes_on_from_its_first_chunk(server):
    chunks = server.client().chat.completions.create(**ASKED, stream=True)
    first = next(iter(chunks))
    path, live = f"/v1/runs/{first.id}/events", []
    reader = threading.Thread(target=lambda: live.append(server.ask("GET", path).body))
    reader.start()
    list(chunks)
    reader.join(30)
    again = server.ask("GET", path).body
    assert live == [again], "byte for byte"
    names = [name for _, name, _ in events_of(server, first.id)]
    assert names[-1] == "done"
    assert "score" in names


def test_from_behind_the_last_one_that_was_seen(server):
    run = server.client().chat.completions.create(**ASKED, max_completion_tokens=10).id
    whole = events_of(server, run)
    assert events_of(server, run, last_event_id="4") == whole[5:]
    assert server.ask("GET", f"/v1/runs/{run}/events", last_event_id="x").status == 400


def test_rows_of_several_choices_are_marked(server):
    found = server.client().chat.completions.create(**ASKED, n=3, max_completion_tokens=4)
    rows = [content["row"] for _, name, content in events_of(server, found.id) if name == "token"]
    assert sorted(rows) == sorted([0, 1, 2] * 4)


def test_the_id_is_in_the_headers_too(server):
    raw = server.client().chat.completions.with_raw_response.create(
        **ASKED, max_completion_tokens=2
    )
    assert raw.headers["x-request-id"] == raw.parse().id


def test_cancelled_from_elsewhere(server):
    chunks = server.client().chat.completions.create(
        **ASKED, stream=True, extra_body={"sparing": {"sampling": {"ignore_eos": True}}}
    )
    first = next(iter(chunks))
    reply = server.ask("POST", f"/v1/runs/{first.id}/cancel")
    assert reply.json == {"id": first.id, "cancelled": True}
    with pytest.raises(openai.APIError, match="cancelled"):
        list(chunks)
    assert events_of(server, first.id)[-1][2]["finish_reason"] == "interrupted"
    assert server.ask("POST", f"/v1/runs/{first.id}/cancel").json["cancelled"] is False


def test_an_unknown_run_is_not_found(server):
    for method, path in (("GET", "events"), ("POST", "cancel")):
        reply = server.ask(method, f"/v1/runs/chatcmpl-0/{path}")
        assert reply.status == 404
        assert reply.json["error"]["code"] == "run_not_found"


def test_only_the_last_ones_are_kept(pocket):
    with live(pocket, ServerConfig(keep_runs=2)) as server:
        runs = [
            server.client().chat.completions.create(**ASKED, max_completion_tokens=1).id
            for _ in range(3)
        ]
        statuses = [server.ask("GET", f"/v1/runs/{run}/events").status for run in runs]
        assert statuses == [404, 200, 200]
        assert server.service.runs.state() == {"live": 0, "kept": 2}
