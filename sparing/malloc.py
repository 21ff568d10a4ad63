"""When glibc gives freed memory back to the system. Elsewhere nothing here has an effect."""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # the parameters of mallopt
LARGEST_THRESHOLD = 32 << 20  # mallopt's maximum


def give_back() -> None:
    """Give freed memory back now. glibc keeps it, so an idle process would look busy."""
    if trim := getattr(_libc(), "malloc_trim", None):
        trim(0)


def keep_freed_memory() -> None:
    """Keep freed memory from now on: new pages for every large tensor take as long as the maths."""
    if option := getattr(_libc(), "mallopt", None):
        option(MMAP_THRESHOLD, LARGEST_THRESHOLD)
        option(TRIM_THRESHOLD, (2 << 30) - 1)


def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" else None
