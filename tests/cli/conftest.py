import pytest

from tests.train.small import fresh, write_sums


@pytest.fixture
def anew():
    """An accelerate that knows of no run before."""
    with fresh():
        yield


@pytest.fixture
def task(tmp_path):
    return write_sums(tmp_path / "gsm8k.jsonl")
