import pytest

from tests.train.small import fresh


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in one order, and an accelerate that knows of no run before."""
    with fresh(1):
        yield
