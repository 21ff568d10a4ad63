"""An answer on a real terminal, and where there is none."""

import fcntl
import os
import pty
import struct
import termios
import threading
from contextlib import contextmanager
from functools import cache

import pytest

from sparing import Memory, Sampling, load
from sparing.cli.run import follow
from tests.cli.command import ctrl_c_before
from tests.cli.screen import Screen

PROMPT = "How many legs do 3 cats, 5 hens and 2 cows have?"


@cache
def pocket():
    return load("pocket")


@contextmanager
def terminal(monkeypatch, columns):
    """stdout is a terminal; gives its screen, which is complete afterwards."""
    main, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 10, columns, 0, 0))
    screen, said = Screen(columns, 10), bytearray()

    def read():
        try:
            while data := os.read(main, 4096):
                said.extend(data)
        except OSError:  # the other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    monkeypatch.setenv("TERM", "xterm")
    with monkeypatch.context() as patch, os.fdopen(end, "w", encoding="utf-8") as stdout:
        patch.setattr("sys.stdout", stdout)
        yield screen
    reader.join()
    os.close(main)
    screen.feed(said.decode())


def stream(**memory):
    sampling = Sampling(max_new_tokens=60, ignore_eos=True, temperature=0)
    asked = pocket().chat.question(PROMPT)
    return pocket().stream(asked, Memory(**memory), sampling=sampling)


@pytest.mark.parametrize("columns", [20, 40, 120])
def test_all_of_the_answer_once(columns, monkeypatch, capsys):
    with terminal(monkeypatch, columns) as screen, stream(budget=80) as live:
        interrupted, result = follow(pocket(), live)
    assert not interrupted
    assert "".join("".join(screen.rows()).split()) == "".join(result.text.split())
    assert all(len(row) < columns for row in screen.rows())
    assert not screen.hidden
    assert "of 80 slots at most (learned)" in capsys.readouterr().err


def test_ctrl_c_leaves_the_terminal_in_order(monkeypatch, capsys):
    ctrl_c_before(monkeypatch, 20)
    with terminal(monkeypatch, 40) as screen, stream() as live:
        stopped, result = follow(pocket(), live)
    assert stopped
    assert "".join("".join(screen.rows()).split()) == "".join(result.text.split()) != ""
    assert not screen.hidden
    assert "ended by interrupted" in capsys.readouterr().err


def test_a_terminal_that_can_do_nothing_gets_the_bare_text(monkeypatch):
    with terminal(monkeypatch, 40) as screen, stream() as live:
        monkeypatch.setenv("TERM", "dumb")
        _, result = follow(pocket(), live)
    assert "".join(screen.rows()).split() == result.text.replace("\n", "").split()
