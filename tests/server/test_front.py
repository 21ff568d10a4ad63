"""A server whose model still loads: /health says so, other requests wait for it."""

import threading
from contextlib import contextmanager

from sparing.server.listener import bind
from sparing.server.run import Server
from sparing.server.service import Service
from sparing.server.settings import ServerConfig
from tests.server.live import PATIENCE_S, Live, until
from tests.server.wire import ASKED

CHAT = "/v1/chat/completions"


@contextmanager
def starting(make):
    """A server that runs ``make``, and the thread that it runs on."""
    listener = bind("127.0.0.1", 0)
    ready = []
    server = Server(ServerConfig(grace_s=0), make, ready.append)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    yield server, Live(None, listener.getsockname()[1], None), ready, thread
    server.should_exit = True
    thread.join(PATIENCE_S)
    listener.close()
    assert not thread.is_alive()


def test_health_answers_while_the_model_loads_and_others_wait(pocket):
    loaded = threading.Event()

    def make():
        loaded.wait(PATIENCE_S)
        return Service(pocket)

    with starting(make) as (_, wire, ready, _thread):
        health = wire.ask("GET", "/health")
        assert (health.status, health.json["status"]) == (503, "loading")
        assert health.json["kv_bytes_limit"] == 1 << 30
        replies = []
        asking = threading.Thread(
            target=lambda: replies.append(wire.ask("POST", CHAT, ASKED | {"max_tokens": 2}))
        )
        asking.start()
        assert wire.ask("GET", "/health/").status == 503
        assert ready == replies == []
        loaded.set()
        asking.join(PATIENCE_S)
        assert replies[0].status == 200
        assert wire.ask("GET", "/health").json["status"] == "ok"
        assert [service.model for service in ready] == ["pocket"]


def test_a_model_that_cannot_be_loaded_ends_the_server():
    asked, loaded = [], threading.Event()

    def make():
        loaded.wait(PATIENCE_S)
        raise ValueError("no such model")

    with starting(make) as (server, wire, ready, thread):
        asking = threading.Thread(target=lambda: asked.append(wire.ask("GET", "/v1/models")))
        asking.start()
        until(lambda: server.server_state.connections)
        loaded.set()
        thread.join(PATIENCE_S)
        asking.join(PATIENCE_S)
        assert str(server.failure) == "no such model"
        assert ready == []
        assert asked[0].status == 503
