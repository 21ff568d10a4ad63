"""64 clients at once, with random options, some of whom leave or cancel: nothing is lost, leaked or
mixed up. SPARING_SOAK_S=120 lets it go on for two minutes."""

import http.client
import json
import os
import random
import threading
import time
from collections import Counter
from typing import Any

import pytest

from sparing.depth.layers import LayerDrafter
from sparing.options import Depth, Memory, Sampling
from sparing.server.settings import ServerConfig
from tests.depth.planted import knowing, planted
from tests.server.live import Live, live
from tests.tiny import engine

SECONDS = float(os.environ.get("SPARING_SOAK_S", 12))
CLIENTS, REQUESTS = 64, 80
PATHS = {"chat": "/v1/chat/completions", "text": "/v1/completions"}


def model():
    """Some of its sub-layers do nothing, as it knows: layers draft rightly."""
    return engine(planted("qwen2"))


def question(dice: random.Random) -> dict[str, Any]:
    """The body of a request, and what Python is asked for the same."""
    text = "".join(dice.choices("abc<>?! 123", k=dice.randint(1, 60)))
    sampling = {
        "temperature": dice.choice([0.0, 0.7, 1.3]),
        "top_p": dice.choice([1.0, 0.9]),
        "seed": dice.randint(0, 99),
        "max_tokens": dice.randint(1, 120),
    }
    if dice.random() < 0.3:
        sampling["stop"] = dice.choice(["a", "\n", ["b", "c"], "\u00e9"])
    if dice.random() < 0.3:
        sampling["logprobs"] = True
    memory: dict[str, Any] = {}
    if dice.random() < 0.5:
        memory = {"budget": 100, "policy": dice.choice(["window", "streaming", "random"])}
    draft = dice.choice(["auto", "off", "lookup", "layers", "hybrid"])
    body = sampling | {
        "model": model().name,
        "messages": [{"role": "user", "content": text}],
        "n": dice.choice([1, 1, 2]),
        "sparing": {"memory": memory, "depth": {"draft": draft}},
    }
    if dice.random() < 0.3:
        body["prompt"] = body.pop("messages")[0]["content"]
        body["logprobs"] = 2
    return body


def alone(body: dict[str, Any]) -> list[tuple[str, str]]:
    """What each choice says when nobody else is there: thinking and answer, or all as one."""
    stop = body.get("stop", [])
    found = []
    for number in range(body["n"]):
        sampling = Sampling(
            temperature=body["temperature"],
            top_p=body["top_p"],
            seed=body["seed"] + number,
            max_new_tokens=body["max_tokens"],
            stop=[stop] if isinstance(stop, str) else stop,
        )
        prompt = body.get("messages") or body["prompt"]
        memory = Memory(**body["sparing"]["memory"])
        [result] = model().generate([prompt], memory, Depth(draft="off"), None, sampling)
        whole = (result.thinking, result.answer) if "messages" in body else ("", result.text)
        found.append(whole)
    return found


class Client:
    """Asks until time is up and it has had two whole answers, and compares."""

    def __init__(self, server: Live, known: list[Any], seed: int, until: float) -> None:
        self.server, self.known, self.until = server, known, until
        self.dice, self.counts = random.Random(seed), Counter[str]()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while time.monotonic() < self.until or self.counts["whole"] < 2:
                body, expected = self.dice.choice(self.known)
                self.counts[self.ask(body, expected)] += 1
        except BaseException as error:
            self.failure = error

    def ask(self, body: dict[str, Any], expected: list[tuple[str, str]]) -> str:
        """How it ended: whole, left, cancelled, refused."""
        stream, leaves = self.dice.random() < 0.5, self.dice.random() < 0.25
        cancels = stream and not leaves and self.dice.random() < 0.2
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=120)
        path = PATHS["chat" if "messages" in body else "text"]
        headers = {"content-type": "application/json"}
        try:
            connection.request("POST", path, json.dumps(body | {"stream": stream}), headers)
            if leaves and not stream:
                time.sleep(self.dice.random() * 0.3)
                return "left"
            response = connection.getresponse()
            if response.status == 429:
                response.read()
                time.sleep(0.05)
                return "refused"
            assert response.status == 200, response.read()
            if not stream:
                self.compare(whole_of(json.loads(response.read())), expected)
                return "whole"
            return self.follow(response, body["n"], expected, leaves, cancels)
        finally:
            connection.close()

    def follow(self, response: Any, n: int, expected: Any, leaves: bool, cancels: bool) -> str:
        """A stream, to its end or not."""
        said = [["", ""] for _ in range(n)]
        lines = self.dice.randint(1, 12)
        while line := response.readline():
            if not line.startswith(b"data: "):
                continue
            if line == b"data: [DONE]\n":
                self.compare([tuple(parts) for parts in said], expected)
                return "whole"
            chunk = json.loads(line.removeprefix(b"data: "))
            if "error" in chunk:
                assert cancels
                assert chunk["error"]["code"] == "cancelled"
                self.compare_begun(said, expected)
                return "cancelled"
            add(said, chunk)
            lines -= 1
            if leaves and lines <= 0:
                self.compare_begun(said, expected)
                return "left"
            if cancels and lines == 0:
                run = chunk["id"]
                assert self.server.ask("POST", f"/v1/runs/{run}/cancel").status == 200
        raise AssertionError("a stream must end with [DONE] or an error")

    def compare(self, said: Any, expected: Any) -> None:
        assert list(said) == list(expected)

    def compare_begun(self, said: Any, expected: Any) -> None:
        for begun, whole in zip(said, expected, strict=True):
            assert all(w.startswith(b) for b, w in zip(begun, whole, strict=True))


def whole_of(answer: dict[str, Any]) -> list[tuple[str, str]]:
    found = []
    for choice in answer["choices"]:
        if "text" in choice:
            found.append(("", choice["text"]))
        else:
            message = choice["message"]
            found.append((message["reasoning_content"] or "", message["content"]))
    return found


def add(said: list[list[str]], chunk: dict[str, Any]) -> None:
    for choice in chunk["choices"]:
        delta = choice.get("delta", {})
        parts = said[choice["index"]]
        parts[0] += delta.get("reasoning_content") or ""
        parts[1] += (delta.get("content") or "") + choice.get("text", "")


@pytest.mark.slow
def test_64_clients_at_once(monkeypatch):
    drafts, learn = Counter(), LayerDrafter.learn

    def noted(drafter: Any, outcomes: Any, seconds: float) -> Any:
        for outcome in outcomes:
            drafts.update(drafted=outcome.drafted, accepted=outcome.accepted)
        return learn(drafter, outcomes, seconds)

    monkeypatch.setattr(LayerDrafter, "learn", noted)
    knowing(model())
    dice = random.Random(0)
    known = [(body, alone(body)) for body in (question(dice) for _ in range(REQUESTS))]
    room = model().loop([]).cache.slot_bytes * 200 * 6  # for six of the longest at a time
    serving = ServerConfig(kv_bytes=room, rows=24, queue=48, keep_runs=8)
    threads_before = threading.active_count()
    with live(model(), serving) as server:
        until = time.monotonic() + SECONDS
        clients = [Client(server, known, seed, until) for seed in range(CLIENTS)]
        threads = [threading.Thread(target=client.run) for client in clients]
        most = 0
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            most = max(most, server.service.scheduler.kv_bytes)
            time.sleep(0.02)
        for client in clients:
            if client.failure:
                raise client.failure
        server.settle()
        counts = sum((client.counts for client in clients), Counter())
        ended = {name: server.ended(name) for name in ("finished", "cancelled", "failed")}
        assert server.service.runs.state()["kept"] <= 8
        assert not server.service.scheduler.loop.live
        assert server.service.scheduler.kv_bytes == 0
    assert most <= room
    assert counts["whole"] > CLIENTS
    assert counts["left"] > 0
    assert counts["cancelled"] > 0
    assert 0 < drafts["accepted"] <= drafts["drafted"]
    assert ended["failed"] == 0
    begun = counts["whole"] + counts["left"] + counts["cancelled"]
    assert counts["whole"] <= ended["finished"] + ended["cancelled"] <= begun
    end = time.monotonic() + 10
    while threading.active_count() > threads_before:
        assert time.monotonic() < end, threading.enumerate()
        time.sleep(0.05)
