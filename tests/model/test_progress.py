"""A load that takes its time says so on stderr."""

import io
import time

import pytest

from sparing.model import progress
from sparing.model.progress import LoadProgress


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE_S", 0.01)
    monkeypatch.setattr(progress, "REDRAWN_S", 0.01)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def load(seconds: float, matrices: int = 4) -> None:
    with LoadProgress("outer"), LoadProgress("inner", matrices) as inner:
        for _ in range(matrices):
            inner.advance()
            time.sleep(seconds / matrices)


def test_a_log_has_one_line(capsys):
    load(0.3)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("loading outer")
    assert line.endswith(" s")


def test_a_long_load_has_more(capsys, monkeypatch):
    monkeypatch.setattr(progress, "EVERY_S", 0.05)
    load(0.4)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert "of 4 matrices" in last
    assert first != last


def test_a_terminal_has_a_line_that_disappears(monkeypatch):
    stderr = Terminal()
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setenv("COLUMNS", "20")
    load(0.3)
    said = stderr.getvalue()
    assert "\n" not in said
    assert said.count("\rloading outer: ") > 2
    assert said.endswith("\r\x1b[K")
    assert max(map(len, said.replace("\x1b[K", "").split("\r"))) <= 19


def test_a_fast_load_says_nothing(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE_S", 60)
    load(0)
    assert capsys.readouterr().err == ""


def test_a_failed_load_leaves_no_line_running(capsys):
    with pytest.raises(ValueError, match="no"), LoadProgress("x"):
        raise ValueError("no")
    with LoadProgress("next") as following:
        assert LoadProgress._outer is following
