"""Work that takes long says how far it has come, on a terminal and in a log."""

from functools import partial

import pytest
from rich.console import Console

from sparing.cli import progress as module
from sparing.cli.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_log_has_a_line_at_once_and_then_now_and_then(clock, capsys):
    with Progress() as progress:
        task = progress.add_task("starting", total=100)
        for step in range(100):
            progress.update(task, advance=1, description=f"sums [{step}]")
            clock[0] += module.EVERY / 10
        other = progress.add_task("unknown", total=None)
        progress.advance(other)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines[0].startswith("sums [0]: 1 of 100, 0:00:0")
    assert lines[1].startswith("sums [10]: 11 of 100, ")
    assert lines[-1].startswith("unknown: 1, ")
    assert len(lines) == 11


def test_a_terminal_has_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(module, "Console", partial(Console, force_terminal=True, width=80))
    with Progress() as progress:
        task = progress.add_task("sums", total=4)
        progress.advance(task, 4)
    err = capsys.readouterr().err
    assert "━" in err
    assert "4/4" in err
    assert "4 of 4" not in err


def test_what_is_tracked_has_its_lines_too(clock, capsys):
    with Progress() as progress:
        for _ in progress.track(range(4), description="parts"):
            clock[0] += module.EVERY
    lines = [line.rpartition(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert lines == [f"parts: {done} of 4" for done in range(1, 5)]
