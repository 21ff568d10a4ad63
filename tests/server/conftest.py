from collections.abc import Iterator

import pytest

from sparing.api import load
from tests.server.live import Live, live
from tests.tiny import unchecked


@pytest.fixture(scope="module", autouse=True)
def _fast():
    """What is checked about shapes is checked elsewhere."""
    with unchecked():
        yield


@pytest.fixture(scope="session")
def pocket():
    """The model that ships."""
    return load("pocket")


@pytest.fixture(scope="session")
def server(pocket) -> Iterator[Live]:
    """Pocket, served as it is by default."""
    with live(pocket) as found:
        yield found
        found.settle()
