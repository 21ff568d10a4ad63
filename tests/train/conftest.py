import pytest
import torch

from tests.train.small import forget_accelerate


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in one order, and an accelerate that knows of no run before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    forget_accelerate()
    yield
    forget_accelerate()
    torch.set_num_threads(threads)
