import pytest

from sparing.api import load
from tests.server.live import Live, live


@pytest.fixture(scope="package")
def pocket():
    """The model that ships."""
    return load("pocket")


@pytest.fixture(scope="package")
def server(pocket) -> Live:
    """Pocket, served as it is by default."""
    with live(pocket) as found:
        yield found
