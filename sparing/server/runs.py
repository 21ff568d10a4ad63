"""Runs: the rows of one HTTP request, on the event loop. The events of the last runs are kept."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from sparing.engine.events import DoneEvent, Event, Stats, TokenEvent
from sparing.engine.row import Request
from sparing.engine.transcript import Transcript
from sparing.server.scheduler import News, Ticket


@dataclass(eq=False)
class Choice:
    """A row of a run: its ``text``, ``tokens`` and ``stats`` from the events so far."""

    run: "LiveRun"
    index: int
    request: Request
    ticket: Ticket | None = None
    text: str = ""
    tokens: list[TokenEvent] = field(default_factory=list)
    stats: Stats = field(default_factory=Stats)
    done: DoneEvent | None = None
    _transcript: Transcript | None = None
    _parts: tuple[str, str] = ("", "")  # set at the row's end

    def take(self, ticket: Ticket, events: Sequence[Event]) -> None:
        """Add new events."""
        self._transcript = ticket.row.transcript if ticket.row else None
        for event in events:
            self.stats.add(event)
            if isinstance(event, TokenEvent):
                self.tokens.append(event)
                self.text += event.text
            elif isinstance(event, DoneEvent):
                self.text += event.text
                self._parts = self.parts
                self.done, self.ticket, self._transcript = event, None, None

    @property
    def parts(self) -> tuple[str, str]:
        """Thinking and answer; before the row's end, without text that a later token may change."""
        if self.done:
            return self._parts
        return self._transcript.split(self.text, so_far=True) if self._transcript else ("", "")


class LiveRun:
    """The rows of one request.

    ``events``: of all rows, each with the number of its ``row``
    ``failure``: the error that ended it early, if any
    """

    def __init__(self, prefix: str, requests: Sequence[Request]) -> None:
        self.id, self.created = f"{prefix}-{uuid4().hex}", int(time.time())
        self.choices = [Choice(self, index, request) for index, request in enumerate(requests)]
        self.events: list[Event] = []
        self.failure: Exception | None = None
        self.begun = time.perf_counter()
        self.first_token_s: float | None = None
        self.ended = asyncio.Event()
        self._readers: list[asyncio.Future[None]] = []

    @property
    def done(self) -> bool:
        return all(choice.done for choice in self.choices)

    def take(self, ticket: Ticket, events: list[Event]) -> None:
        """Add new events of one row, and wake the waiting readers."""
        self.events += events
        self.failure = self.failure or ticket.failure
        self.choices[ticket.choice].take(ticket, events)
        if self.first_token_s is None and self.choices[ticket.choice].tokens:
            self.first_token_s = time.perf_counter() - self.begun
        if self.done:
            self.ended.set()
        for reader in self._readers:
            if not reader.done():
                reader.set_result(None)
        self._readers.clear()

    async def news(self) -> None:
        """Wait for new events."""
        reader = asyncio.get_running_loop().create_future()
        self._readers.append(reader)
        await reader


class RunRegistry:
    """The live runs and the last ``keep`` ended ones, by id."""

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self.live: dict[str, LiveRun] = {}
        self._ended: OrderedDict[str, LiveRun] = OrderedDict()

    def add(self, run: LiveRun) -> None:
        self.live[run.id] = run

    def find(self, id_: str) -> LiveRun | None:
        return self.live.get(id_) or self._ended.get(id_)

    def end(self, run: LiveRun) -> None:
        """Move a run to the ended ones."""
        self.live.pop(run.id, None)
        self._ended[run.id] = run
        while len(self._ended) > self.keep:
            self._ended.popitem(last=False)

    def take(self, news: News) -> list[LiveRun]:
        """Distribute the scheduler's news; returns the runs that ended."""
        ended: list[LiveRun] = []
        for ticket, events in news:
            run: LiveRun = ticket.owner
            run.take(ticket, events)
            if run.done and run.id in self.live:
                self.end(run)
                ended.append(run)
        return ended

    def state(self) -> dict[str, Any]:
        return {"live": len(self.live), "kept": len(self._ended)}
