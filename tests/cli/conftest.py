import pytest

from tests.cli.command import Command


@pytest.fixture
def sparing(monkeypatch, capfd):
    """The command line."""
    return Command(monkeypatch, capfd)
