"""`sparing serve` as a process: its start, its end, in order or not, and what it refuses."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import assert_one_line
from tests.server.live import until
from tests.tiny import tiny

ROOT = Path(__file__).parents[2]
ENDLESS = {  # far longer than any test waits
    "messages": [{"role": "user", "content": "x"}],
    "max_tokens": 1900,
    "temperature": 0,
    "sparing": {"sampling": {"ignore_eos": True}, "depth": {"draft": "off"}},
}


class Process:
    """A server that was started; its port is what it says."""

    def __init__(self, *flags: object, before: str = "") -> None:
        script = f"import sys\n{before}\nfrom sparing.cli.main import main\nsys.exit(main())"
        command = [sys.executable, "-c", script, "serve", *map(str, flags)]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said: list[str] = []
        for line in self.process.stderr:  # type: ignore[union-attr]
            self.said.append(line)
            if found := re.search(r"at http://127\.0\.0\.1:(\d+)/v1", line):
                self.port = int(found[1])
                break
        else:
            raise AssertionError(f"it ended: {self.said}")
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self.process.stderr:  # type: ignore[union-attr]
            self.said.append(line)

    def post(self, body: dict[str, Any]) -> tuple[int, bytes]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/chat/completions",
            json.dumps(body | {"model": str(tiny())}).encode(),
            {"content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def there(self) -> tuple[int, int]:
        """How many requests are live, and how many wait."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health") as reply:
            found = json.load(reply)
        return found["live"], found["waiting"]

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def started(*flags: object, before: str = "") -> Iterator[Process]:
    """``before``: Python that is run first."""
    process = Process("--model", tiny(), *flags, before=before)
    try:
        yield process
    finally:
        process.process.kill()
        process.process.wait()


class Asking(threading.Thread):
    """A request on a thread of its own; ``reply`` is there when it has ended."""

    def __init__(self, process: Process, **more: Any) -> None:
        super().__init__(daemon=True)
        self.process, self.body, self.reply = process, ENDLESS | more, None
        self.start()

    def run(self) -> None:
        try:
            self.reply = self.process.post(self.body)
        except Exception as error:
            self.reply = error


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_open_requests_are_finished_before_it_leaves(number, code):
    with started("--port", 0, "--grace", 60) as process:
        asking = [Asking(process, max_tokens=600, stream=stream) for stream in (False, True)]
        until(lambda: process.there() == (2, 0))
        assert process.end(number) == code
        for one in asking:
            one.join(60)
        statuses, bodies = zip(*(one.reply for one in asking), strict=True)
        assert statuses == (200, 200)
        assert json.loads(bodies[0])["usage"]["completion_tokens"] == 600
        assert bodies[1].endswith(b"data: [DONE]\n\n")


@pytest.mark.slow
def test_those_that_take_longer_are_told_so():
    with started("--port", 0, "--grace", 0.2, "--rows", 2) as process:
        asking = [Asking(process, stream=stream) for stream in (False, True, False)]
        until(lambda: process.there() == (2, 1))
        begun = time.monotonic()
        assert process.end(signal.SIGTERM) == 0
        assert time.monotonic() - begun < 20
        for one in asking:
            one.join(60)
        for one in asking:
            status, body = one.reply
            streams = one.body["stream"]
            assert status == (200 if streams else 503)
            text = body.rstrip().rsplit(b"data: ", 1)[-1] if streams else body
            assert json.loads(text)["error"]["code"] == "shutting_down"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_told_to_leave_while_its_model_loads(number, code):
    """Nothing is open, so it leaves at once, and has not said that it listens."""
    slowly = """
import time
from sparing.cli.flags import LoadingFlags
def load(self):
    print("at http://127.0.0.1:0/v1", file=sys.stderr, flush=True)
    time.sleep(60)
LoadingFlags.load = load
"""
    begun = time.monotonic()
    with started("--port", 0, before=slowly) as process:
        assert process.end(number) == code
        assert time.monotonic() - begun < 30


@pytest.mark.slow
def test_log_lines_are_on_stderr_unless_quiet():
    for flags, expected in (((), 1), (("--quiet",), 0)):
        with started("--port", 0, *flags) as process:
            assert process.post(ENDLESS | {"max_tokens": 2})[0] == 200
            assert process.end(signal.SIGTERM) == 0
            lines = [line for line in process.said if "POST /v1/chat/completions 200" in line]
            assert len(lines) == expected


@pytest.mark.slow
def test_killed_and_started_again_at_the_same_port():
    with started("--port", 0) as process:
        port = process.port
        asking = Asking(process, stream=True)
        until(lambda: process.there() == (1, 0))
        assert process.end(signal.SIGKILL) == -signal.SIGKILL
        asking.join(60)
        assert not (isinstance(asking.reply, tuple) and b"[DONE]" in asking.reply[1])
    with started("--port", port) as process:
        assert process.port == port
        status, body = process.post(ENDLESS | {"max_tokens": 5})
        assert status == 200
        assert json.loads(body)["usage"]["completion_tokens"] == 5


def test_a_port_that_is_taken_is_told_before_the_model_loads(sparing, never_read):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = sparing("serve", "--model", never_read, "--port", port)
    assert_one_line(outcome, f"must be free to listen on, got 127.0.0.1:{port}")


WRONG = {
    "kv": (("--kv-bytes", "much"), "must be bytes (1073741824, 512M, 2G), got 'much'"),
    "no kv": (("--kv-bytes", "0"), "--kv-bytes must be greater than or equal to 1"),
    "rows": (("--rows", "0"), "--rows must be greater than or equal to 1"),
    "queue": (("--queue", "-1"), "--queue must be greater than or equal to 0"),
    "time": (("--timeout", "0"), "--timeout must be greater than 0"),
    "port": (("--port", "99999"), "less than or equal to 65535"),
    "host": (("--host", "nowhere.invalid"), "must be free to listen on"),
    "budget": (("--budget", "1.5"), "or a share above 0 and at most 1"),
}


@pytest.mark.parametrize(("flags", "message"), WRONG.values(), ids=WRONG)
def test_wrong_flags_are_one_line_before_the_model_loads(sparing, never_read, flags, message):
    outcome = sparing("serve", "--port", 0, "--model", never_read, *flags)
    assert_one_line(outcome, message)


def test_too_little_room_for_the_model(sparing):
    outcome = sparing("serve", "--port", 0, "--model", tiny(), "--kv-bytes", "10K")
    assert outcome.code == 2
    assert "--kv-bytes must be at least" in outcome.err


@pytest.mark.parametrize("command", [("serve",), ("bench", "serve")])
def test_without_the_extra_it_says_what_to_install(sparing, monkeypatch, command):
    monkeypatch.setattr(
        "sparing.cli.serve.find_spec", lambda name: None if name == "uvicorn" else find_spec(name)
    )
    outcome = sparing(*command)
    assert_one_line(outcome, "(uvicorn)", "pip install 'sparing[serve]'")
