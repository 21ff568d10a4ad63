"""A server in this process, on a thread of its own, and what is asked of it over the wire."""

import http.client
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import openai

from sparing.api import Engine
from sparing.server.listener import bind
from sparing.server.run import Server
from sparing.server.service import Service
from sparing.server.settings import RequestDefaults, ServerConfig

PATIENCE_S = 60


class Live:
    """A running server. ``service``: what stands behind it."""

    def __init__(self, service: Service, port: int, api_key: str | None) -> None:
        self.service, self.port, self.api_key = service, port, api_key

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **more: Any) -> openai.OpenAI:
        """The official client; it tries everything once."""
        options = {"api_key": self.api_key or "none", "max_retries": 0, "timeout": PATIENCE_S}
        return openai.OpenAI(base_url=f"{self.url}/v1", **options | more)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> "Reply":
        """One plain HTTP request; a body that is not bytes goes as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        given = {"content-type": "application/json"} if body is not None else {}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, given)
            response = connection.getresponse()
            return Reply(response.status, response.read(), dict(response.getheaders()))
        finally:
            connection.close()

    def ended(self, outcome: str) -> int:
        """How many requests did so: finished, cancelled, failed; as the metrics say."""
        key = {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        metrics = self.ask("GET", "/metrics", **key).body.decode()
        found = re.search(rf'sparing_requests_total{{outcome="{outcome}"}} (\d+)', metrics)
        return int(found[1]) if found else 0

    def settle(self) -> None:
        """Wait until nobody is there any more."""
        here, runs = self.service.scheduler, self.service.runs
        until(
            lambda: not (here.live or here.waiting or runs.live or here.kv_bytes),
            "somebody is still there",
        )


class Reply:
    def __init__(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.status, self.body, self.headers = status, body, headers

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def until(condition: Callable[[], Any], otherwise: str = "it never came") -> None:
    """Wait for it, but not for ever."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, otherwise
        time.sleep(0.01)


@contextmanager
def live(
    engine: Engine, serving: ServerConfig | None = None, defaults: RequestDefaults | None = None
) -> Iterator[Live]:
    """From its first answer to its orderly end."""
    service = Service(engine, serving, defaults)
    listener = bind("127.0.0.1", 0)
    server = Server(service.serving, lambda: service)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    found = Live(service, listener.getsockname()[1], service.serving.api_key)
    try:
        assert found.ask("GET", "/health").status == 200
        yield found
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        listener.close()
        assert not thread.is_alive(), "the server must stop when it is told to"
        assert not service.scheduler.alive
