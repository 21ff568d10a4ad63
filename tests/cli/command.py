"""Running `sparing` in this process, as the shell would."""

import os
import signal
import sys
from typing import NamedTuple

import pytest

from sparing.api import Stream
from sparing.cli.main import main


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


def assert_one_line(outcome: Outcome, *said: str) -> None:
    """A user's mistake: nothing on stdout, one line on stderr that says all of that."""
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    for part in said:
        assert part in outcome.err


def ctrl_c_before(monkeypatch: pytest.MonkeyPatch, number: int, streams: int = 1) -> None:
    """A real SIGINT before the event of this number, in each of the first streams."""
    following, pressed = Stream.__next__, list[Stream]()

    def interrupted(stream):
        if len(stream._events) == number and len(pressed) < streams:
            pressed.append(stream)
            os.kill(os.getpid(), signal.SIGINT)
        return following(stream)

    monkeypatch.setattr(Stream, "__next__", interrupted)


class Command:
    """Call it with arguments; it gives exit code, stdout and stderr."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
        self._monkeypatch, self._capfd = monkeypatch, capfd

    def __call__(self, *arguments: object) -> Outcome:
        self._monkeypatch.setattr(sys, "argv", ["sparing", *map(str, arguments)])
        self._capfd.readouterr()  # what was said before it
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = self._capfd.readouterr()
        return Outcome(int(exit_.value.code or 0), out, err)
