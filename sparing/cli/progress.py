"""Progress of long work: a bar on a terminal, else a line now and then."""

import time
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

EVERY = 30.0  # seconds between two lines


class Progress(Bar):
    """rich's, on stderr. In a log, which a bar would fill, each task has a line at its first step
    and one every ``EVERY`` seconds."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            auto_refresh=console.is_terminal,  # else `track` steps in a thread of its own
            disable=not console.is_terminal,
        )
        self._told: dict[TaskID, float] = {}

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        self._tell(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._tell(task_id)

    def _tell(self, task_id: TaskID) -> None:
        now = time.monotonic()
        if not self.disable or now - self._told.get(task_id, -EVERY) < EVERY:
            return
        self._told[task_id] = now
        task = self._tasks[task_id]
        of = "" if task.total is None else f" of {task.total:.0f}"
        passed = timedelta(seconds=int(task.elapsed or 0))
        said = f"{task.description}: {task.completed:.0f}{of}, {passed}"
        self.console.print(said, markup=False, highlight=False, soft_wrap=True)
