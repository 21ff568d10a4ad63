"""How many threads torch has beside kernels that bring their own."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def with_few_threads(step: Callable[..., T]) -> Callable[..., T]:
    """A method of what has a ``decoder``: while it runs torch has as many threads as that wants.

    Torch's threads look for work for milliseconds after each operation. Beside a compiled pass,
    whose threads need the cores, they double its time: 5.0 ms a token of SmolLM2, 6.9 with them.
    """

    @wraps(step)
    def run(self: Any, *arguments: Any, **options: Any) -> T:
        before, wanted = torch.get_num_threads(), getattr(self.decoder, "torch_threads", None)
        if wanted in (None, before):
            return step(self, *arguments, **options)
        torch.set_num_threads(wanted)
        try:
            return step(self, *arguments, **options)
        finally:
            torch.set_num_threads(before)

    return run
