"""Of all tests, and the choice of few of them."""

import pytest
from hypothesis import settings

from tests.cli.command import Command

settings.register_profile("shared machine", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=10)
settings.load_profile("shared machine")


def pytest_addoption(parser):
    parser.addoption("--fast", action="store_true", help="one case of each test that is not slow")


def pytest_collection_modifyitems(config, items):
    """With ``--fast``: the first case of each test, and no slow one."""
    if not config.getoption("--fast"):
        return
    settings.load_profile("fast")
    first, rest = {}, []
    for item in items:
        name = item.nodeid.partition("[")[0]
        if item.get_closest_marker("slow") or name in first:
            rest.append(item)
        else:
            first[name] = item
    config.hook.pytest_deselected(items=rest)
    items[:] = first.values()


@pytest.fixture(scope="session", autouse=True)
def _never_at_home(tmp_path_factory):
    """Also for what outlives a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def state(tmp_path_factory, monkeypatch):
    """Nothing that one test's engines have learned is known to another's."""
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    return folder


@pytest.fixture
def never_read(tmp_path_factory):
    """A model that is there and cannot be read."""
    path = tmp_path_factory.mktemp("model") / "never-read.gguf"
    path.touch()
    return path


@pytest.fixture
def sparing(monkeypatch, capfd):
    """The command line."""
    return Command(monkeypatch, capfd)
