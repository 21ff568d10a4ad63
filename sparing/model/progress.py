"""What is being loaded and how far, on stderr, once it takes longer than two seconds."""

import sys
import time
from shutil import get_terminal_size
from threading import Event, Thread
from typing import ClassVar

PATIENCE_S = 2.0
EVERY_S = 30.0  # between two lines of a log
REDRAWN_S = 0.5  # between two states of a terminal's line


class LoadProgress:
    """On a terminal one line that is redrawn and erased at the end, in a log a line now and then.

    ``what``: name of the model. ``total``: matrices to load, where they are counted. A load inside
    another one, as of the weights, counts for the outer one.
    """

    _outer: ClassVar["LoadProgress | None"] = None

    def __init__(self, what: str, total: int = 0) -> None:
        self.what, self.total, self.done = what, total, 0
        self._shown, self._begun = self, time.monotonic()
        self._ended, self._thread = Event(), Thread(target=self._tell, daemon=True)

    def __enter__(self) -> "LoadProgress":
        if outer := LoadProgress._outer:
            outer.total, outer.done, self._shown = self.total, 0, outer
        else:
            LoadProgress._outer = self
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if LoadProgress._outer is self:
            LoadProgress._outer = None
            self._ended.set()
            self._thread.join()

    def advance(self) -> None:
        """One more matrix is loaded."""
        self._shown.done += 1

    def __str__(self) -> str:
        counted = f": {self.done} of {self.total} matrices" if self.total else ""
        return f"loading {self.what}{counted}, {time.monotonic() - self._begun:.0f} s"

    def _tell(self) -> None:
        if self._ended.wait(PATIENCE_S):
            return
        if not sys.stderr.isatty():
            while True:
                print(self, file=sys.stderr, flush=True)
                if self._ended.wait(EVERY_S):
                    return
        while not self._ended.is_set():
            line = str(self)[: get_terminal_size().columns - 1]
            print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)
            self._ended.wait(REDRAWN_S)
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
