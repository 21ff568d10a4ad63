from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from tests.server.page.browsing import CHROMIUM, HOW, Visit, chromium, visit


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One for the tests of a module. While it is there, Playwright's event loop runs in this
    thread, and no other can.
    """
    if CHROMIUM is None:
        pytest.skip(HOW)
    if find_spec("playwright") is None:
        pytest.skip("the page is tried with Playwright, which is not here: pip install playwright")
    with chromium() as found:
        yield found


@pytest.fixture
def seen(browser, server) -> Iterator[Visit]:
    """The page of pocket's server, ready to be asked; nothing may be wrong with it."""
    with visit(browser, server.url) as found:
        yield found.ready()
        assert found.complaints == []
