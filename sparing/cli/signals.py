"""Ctrl-C while there is nothing to keep yet: the process leaves at once."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

INTERRUPTED = 130


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Within it Ctrl-C ends the process, with exit code 130: imports turn an exception into another
    one, print it or swallow it. Does nothing where something else takes care of Ctrl-C."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def leave(*_: object) -> None:
    """End the process; a line that is being redrawn stays."""
    with suppress(Exception):
        if sys.stderr.isatty():
            sys.stderr.write("\n")
        sys.stderr.flush()
    os._exit(INTERRUPTED)
