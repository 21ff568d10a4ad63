"""A progress bar for loading, shown after two seconds."""

import sys
import time
from types import TracebackType
from typing import Any

PATIENCE_S = 2.0


class LoadProgress:
    """A bar labelled ``what`` with ``total`` steps, on a terminal, once PATIENCE_S have passed."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done = what, total, 0
        self._begun, self._bar, self._task = time.monotonic(), None, None

    def __enter__(self) -> "LoadProgress":
        return self

    def advance(self) -> None:
        self.done += 1
        if self._bar is None and self._due():
            self._open()
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done)

    def _due(self) -> bool:
        return sys.stderr.isatty() and time.monotonic() - self._begun > PATIENCE_S

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import Progress as Bar

        bar: Any = Bar(console=Console(stderr=True), transient=True)
        bar.start()
        self._bar, self._task = bar, bar.add_task(self.what, total=self.total)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
