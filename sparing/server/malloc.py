"""Memory that was freed, given back to the system."""

import ctypes
import sys
from functools import cache
from typing import Any


@cache
def _trim() -> Any:
    """glibc's ``malloc_trim``; None elsewhere."""
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def give_back() -> None:
    """glibc keeps what is freed for the next allocation, in pieces and for good: a server that was
    busy once would look as if it still were."""
    if trim := _trim():
        trim(0)
