"""Where `--ray` points is looked at before anything loads."""

import socket
import threading

import pytest

from sparing.errors import OptionError
from sparing.ray import address
from sparing.ray.address import check_ray, host_and_port
from tests.cli.command import assert_one_line

EVAL = ("eval", "--task", "sums", "--n", 2)


@pytest.mark.parametrize("given", ["", "nowhere", "ray://head:10001", "head:", ":6379", "a/b:1"])
def test_other_forms_are_refused(sparing, never_read, given):
    outcome = sparing(*EVAL, "--model", never_read, "--ray", given)
    assert_one_line(outcome, "--ray must be local", f"got {given!r}", "ray job submit")


def test_host_and_port():
    assert host_and_port("head.example:6379") == ("head.example", 6379)
    assert host_and_port("[::1]:6379") == ("::1", 6379)


def test_nothing_listens(sparing, never_read):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    outcome = sparing(*EVAL, "--model", never_read, "--ray", f"127.0.0.1:{port}")
    assert_one_line(outcome, f"got 127.0.0.1:{port} (Connection refused)", "ray start --head")


@pytest.mark.parametrize("said", [b"HTTP/1.0 400 Bad Request\r\n\r\n", b""])
def test_something_else_listens(said):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.sendall(said)
                connection.recv(64)

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(OptionError, match="something that is not Ray"):
            check_ray(f"127.0.0.1:{server.getsockname()[1]}")


def test_a_port_that_says_nothing(monkeypatch):
    monkeypatch.setattr(address, "ANSWER_S", 0.1)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(OptionError, match="timed out"),
    ):
        check_ray(f"127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize(
    "command",
    [EVAL, ("bench", "memory", "--task", "sums"), ("train", "predictor", "--out", "nowhere")],
)
def test_without_ray(sparing, never_read, monkeypatch, command):
    monkeypatch.setattr(address, "find_spec", lambda name: None)
    outcome = sparing(*command, "--model", never_read, "--ray", "local")
    assert_one_line(outcome, "--ray needs the package ray", "pip install 'sparing[ray]'")
