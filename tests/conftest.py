"""Of all tests, and the choice of few of them."""

from collections import Counter

import pytest
from hypothesis import settings

from tests.cli.command import Command

settings.register_profile("shared machine", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=10)
settings.load_profile("shared machine")


FAST = 0.2  # seconds of a test's longest case
SECONDS = "sparing/seconds"
_seconds: Counter = Counter()


def without_case(nodeid):
    return nodeid.partition("[")[0]


def pytest_addoption(parser):
    parser.addoption("--fast", action="store_true", help="one case of each test that was fast here")


def pytest_collection_modifyitems(config, items):
    """With ``--fast``: one case of each test, without what is slow or was in its last run here."""
    if not config.getoption("--fast"):
        return
    settings.load_profile("fast")
    seen = config.cache.get(SECONDS, {}) if hasattr(config, "cache") else {}
    first, rest = {}, []
    for item in items:
        name = without_case(item.nodeid)
        if item.get_closest_marker("slow") or seen.get(name, 0) > FAST or name in first:
            rest.append(item)
        else:
            first[name] = item
    config.hook.pytest_deselected(items=rest)
    items[:] = first.values()


def pytest_runtest_logreport(report):
    _seconds[report.nodeid] += report.duration


def pytest_sessionfinish(session):
    """What is known of each test is its last run."""
    if not hasattr(session.config, "workerinput") and hasattr(session.config, "cache"):
        longest: dict[str, float] = {}
        for case, seconds in _seconds.items():
            longest[without_case(case)] = max(longest.get(without_case(case), 0), round(seconds, 3))
        session.config.cache.set(SECONDS, session.config.cache.get(SECONDS, {}) | longest)


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
