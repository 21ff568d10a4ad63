"""The driver of a loop: requests wait, get a row, end. A stream is a run of one request."""

import atexit
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from weakref import WeakSet

from sparing.engine.events import DoneEvent, Event, TokenEvent
from sparing.engine.loop import Loop
from sparing.engine.result import Result
from sparing.engine.row import Request, Row
from sparing.errors import message


@dataclass(frozen=True)
class Step:
    """One step of a loop: the rows that took part, their events, and its seconds."""

    rows: Sequence[Row]
    events: Sequence[Event]
    seconds: float


OPEN = WeakSet[Generator[Step]]()  # runs that are not at their end


@atexit.register
def close_all() -> None:
    """End what a reader left: an error's traceback keeps a run alive, and torch aborts the process
    if its tensors are still alive when the interpreter ends."""
    for steps in list(OPEN):
        with suppress(Exception):
            steps.close()


class Run:
    """Requests through a loop, waiting where it is full: an iterator over all their events.

    ``rows``: those admitted so far, in the order of the requests.
    ``on_end`` is called once nothing more comes, also where the reader left.
    """

    def __init__(
        self,
        loop: Loop,
        requests: Iterable[Request],
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.loop, self.rows, self.on_end = loop, list[Row](), on_end
        self._waiting = deque(requests)

    def __iter__(self) -> Iterator[Event]:
        for step in self.steps():
            yield from step.events

    def steps(self) -> Iterator[Step]:
        """The same, step by step."""
        steps = self._steps()
        OPEN.add(steps)
        return steps

    def _steps(self) -> Generator[Step]:
        try:
            while self._waiting or self.loop.live:
                while self._waiting and self.loop.free_rows:
                    self.rows.append(self.loop.admit(self._waiting.popleft()))
                rows, begun = list(self.loop.live), time.perf_counter()
                events = self.loop.step()
                yield Step(rows, events, time.perf_counter() - begun)
        finally:
            for row in list(self.loop.live):
                self.loop.retire(row)
            self.on_end()


class Stream:
    """An iterator over one prompt's events, with the result so far.

    ``notice``: as in Result
    ``budget``: the row's memory in slots; None without a budget

    As a context manager it is closed at the end of its block.
    """

    def __init__(self, run: Run, request: Request) -> None:
        self._run, self._events = run, list[Event]()
        self.notice, self.budget = request.prompt.notice, request.budget
        self._iterator = iter(run)
        self._text = ""

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> "Stream":
        return self

    @property
    def begun(self) -> bool:
        """Whether there is a result."""
        return bool(self._run.rows)

    def __next__(self) -> Event:
        event = next(self._iterator)
        self._events.append(event)
        if isinstance(event, TokenEvent | DoneEvent):
            self._text += event.text
        if isinstance(event, DoneEvent) and (error := self._run.rows[0].error):
            self.close()
            raise error
        return event

    @property
    def parts(self) -> tuple[str, str]:
        """Thinking and answer; before the end without text that a later token may change, so that
        both only grow."""
        if not self.begun:
            return "", ""
        ended = isinstance(self._events[-1], DoneEvent)
        return self._run.rows[0].transcript.split(self._text, so_far=not ended)

    def close(self) -> None:
        """Stop; the row's memory is freed. Iterating on finds nothing more."""
        self._iterator.close()  # type: ignore[attr-defined]

    def result(self) -> Result:
        """What has been produced; ``finish_reason`` "interrupted" before the end."""
        if not self.begun:
            raise ValueError("a stream must have been iterated before it has a result; call next()")
        row = self._run.rows[0]
        ended = self._events and isinstance(self._events[-1], DoneEvent)
        events = (
            self._events if ended else [*self._events, self._run.loop.done(row, interrupted=True)]
        )
        return Result.of(row.transcript, events)


def results_of(rows: Sequence[Row], events: Sequence[Sequence[Event]]) -> list[Result]:
    """What rows have said; raises the first error where they all failed, else warns of each."""
    errors = {number: row.error for number, row in enumerate(rows) if row.error}
    if rows and len(errors) == len(rows):
        raise errors[0]
    for number, error in errors.items():
        warnings.warn(f"prompt {number} was not answered: {message(error)}", stacklevel=3)
    return [Result.of(row.transcript, told) for row, told in zip(rows, events, strict=True)]
