"""Continuous batching: requests join and leave the loop between its steps, in order of arrival.

One thread owns the loop and its cache; all other code talks to it through tickets.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sparing.api import Engine
from sparing.engine.events import DoneEvent, Event, LayersEvent, TokenEvent
from sparing.engine.loop import PREFILL_CHUNK
from sparing.engine.row import Request, Row
from sparing.malloc import give_back
from sparing.options import Depth, DraftName
from sparing.server.admission import KvBudget
from sparing.server.per_request_drafter import PerRequestDrafter
from sparing.server.settings import ServerConfig

TELL_S = 0.03  # longest delay of news, which are sent together
REST_S = 0.2  # idle time before memory is given back to the system
LEAST_CHUNK = 16  # least prompt tokens a row reads in a step

log = logging.getLogger("sparing")


class QueueFull(Exception):
    """The queue is full, with ``waiting`` requests."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} requests are waiting")
        self.waiting = waiting


class Closed(Exception):
    """The server is shutting down."""


@dataclass(eq=False)
class Ticket:
    """A request on its way through the engine: it waits, has a ``row``, is ``done``.

    ``draft``: the name of its drafter
    ``owner``: the run that gets its events
    ``choice``: the number of its events' row
    ``failure``: the error that ended it early, if any; None for a cancelled request
    ``started``: whether its first token has been sent
    """

    request: Request
    draft: DraftName
    owner: Any = None
    choice: int = 0
    row: Row | None = None
    failure: Exception | None = None
    started: bool = False
    done: bool = False


News = list[tuple[Ticket, list[Event]]]


class Scheduler:
    """Serves tickets on its own thread, within the ``room`` for keys and values.

    ``tell``: called on that thread with new events; the last event of a ticket is a DoneEvent
    ``queue``: the most waiting tickets
    ``kv_bytes``: bytes of the cache now
    """

    def __init__(
        self,
        engine: Engine,
        serving: ServerConfig,
        tell: Callable[[News], None],
        depth: Depth | None = None,
        kv: str = "auto",
    ) -> None:
        """``kv``: the storage of keys and values for all tickets, as in ``Memory.kv``."""
        self.queue, self.tell, self.drafting = serving.queue, tell, engine.drafting
        cache = engine.cache(1, 0, 0, kv)
        self.room = KvBudget(cache.slot_bytes, serving.kv_bytes, serving.rows)
        self.drafter = PerRequestDrafter(self.drafting, cache, depth or Depth())
        self.loop = engine.loop_over(cache, self.drafter)
        self._changed = threading.Condition()
        self._waiting: deque[Ticket] = deque()
        self._leaving: list[tuple[Ticket, Exception | None]] = []
        self._live: dict[int, Ticket] = {}  # by tag
        self._tags = 0
        self._closed = False
        self._news: News = []
        self._told = 0.0
        self._apart = False  # whether the last step was only for newcomers
        self.steps, self.step_seconds = 0, 0.0
        self._thread = threading.Thread(target=self._serve, name="sparing-engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def live(self) -> int:
        return len(self._live)

    @property
    def kv_bytes(self) -> int:
        return self.loop.cache.nbytes

    @property
    def alive(self) -> bool:
        """Whether the engine's thread is running."""
        return self._thread.is_alive()

    def submit(self, tickets: Sequence[Ticket]) -> None:
        """Add tickets to the queue, all or none. Raises QueueFull or Closed."""
        with self._changed:
            if self._closed:
                raise Closed
            free = self.room.rows - len(self._live) if not self._waiting else 0
            if len(self._waiting) + len(tickets) > self.queue + free:
                raise QueueFull(len(self._waiting))
            for ticket in tickets:
                self._tags += 1
                ticket.request = replace(ticket.request, tag=self._tags)
                self._waiting.append(ticket)
            self._changed.notify()

    def cancel(self, tickets: Sequence[Ticket], failure: Exception | None = None) -> None:
        """End tickets early, between two steps; tickets that are done do not change.

        ``failure``: the error for their runs
        """
        with self._changed:
            self._leaving += [(ticket, failure) for ticket in tickets]
            self._changed.notify()

    def close(self, failure: Exception | None = None) -> None:
        """Refuse new tickets, end all others, and wait for the end of the thread."""
        with self._changed:
            self._closed = True
            self._leaving += [(t, failure) for t in (*self._waiting, *self._live.values())]
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def drain(self) -> None:
        """Refuse new tickets."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _serve(self) -> None:
        while self._await_work():
            self.turn()
        self._flush()
        self.drafting.keep()

    def _await_work(self) -> bool:
        """Sleep until there is work; False once the scheduler is closed and idle."""
        with self._changed:
            summoned = self._changed.wait_for(self._summoned, REST_S)
        if not summoned:
            give_back()
            self.drafting.keep()
            with self._changed:
                self._changed.wait_for(self._summoned)
        return bool(self._waiting or self._leaving or self._live)

    def _summoned(self) -> bool:
        return bool(self._waiting or self._leaving or self._live or self._closed)

    def turn(self) -> None:
        """Apply cancellations, admit what fits, run one step."""
        self._let_go()
        try:
            self._admit()
            if self._live:
                self._step()
        except Exception as error:  # a pass is for all rows, so no row can continue
            log.exception("a step failed, and with it %d requests", len(self._live))
            for ticket in list(self._live.values()):
                self._end(ticket, error)
        if not self._live:
            self._rest()
        if self._news and time.perf_counter() - self._told > TELL_S:
            self._flush()

    def _let_go(self) -> None:
        with self._changed:
            leaving, self._leaving = self._leaving, []
        for ticket, failure in leaving:
            if not ticket.done:
                self._end(ticket, failure)

    def _end(self, ticket: Ticket, failure: Exception | None) -> None:
        """End a ticket early."""
        ticket.failure = failure
        event = DoneEvent("interrupted")
        if ticket.row is not None:
            event = self.loop.done(ticket.row, interrupted=True)
            if ticket.row in self.loop.live:  # a failed step may have retired it
                self.loop.retire(ticket.row)
        with self._changed:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
        self._note(ticket, [event])

    def _admit(self) -> None:
        """Admit waiting tickets in order, up to the first that does not fit."""
        slots = [row.request.slots for row in self.loop.live]
        taken: list[Ticket] = []
        with self._changed:
            while self._waiting and self.room.fits([*slots, self._waiting[0].request.slots]):
                ticket = self._waiting.popleft()
                slots.append(ticket.request.slots)
                taken.append(ticket)
                self._live[ticket.request.tag] = ticket
        if not taken:
            return
        cache = self.loop.cache
        first = len(slots) == len(taken)
        if len(slots) > cache.rows or max(slots) > cache.limit:
            self.loop.resize(*self.room.layout(slots, exact=first))
        for ticket in taken:
            try:
                ticket.row = self.loop.admit(ticket.request)
                self.drafter.begin(ticket.row, ticket.draft, alone=first)
            except Exception as error:
                log.exception("a request could not be admitted")
                self._end(ticket, error)

    def _step(self) -> None:
        reading = sum(row.reading for row in self.loop.live)
        self.loop.chunk = max(PREFILL_CHUNK // max(reading, 1), LEAST_CHUNK)
        begun = time.perf_counter()
        newcomers = [] if self._apart else self._newcomers()
        self._apart = bool(newcomers)
        events = self.loop.step(newcomers or None)
        self.steps += 1
        self.step_seconds += time.perf_counter() - begun
        self._share(events)

    def _newcomers(self) -> list[Row]:
        """Rows that can get their first token in this step.

        Every other step is only for them: their first token comes sooner, and the other rows wait
        for one short pass.
        """
        chunk = self.loop.chunk
        return [row for row in self.loop.live if row.reading and len(row.pending.ids) <= chunk]

    def _share(self, events: Sequence[Event]) -> None:
        """Give each ticket its events; a LayersEvent goes to all tickets with that drafter."""
        by_tag: dict[int, list[Event]] = {}
        for event in events:
            if isinstance(event, LayersEvent):
                asked = self._live[event.row].draft
                for tag, ticket in self._live.items():
                    if ticket.draft == asked:
                        by_tag.setdefault(tag, []).append(event)
            else:
                by_tag.setdefault(event.row, []).append(event)
        for tag, own in by_tag.items():
            self._note(self._live[tag], own)

    def _note(self, ticket: Ticket, events: list[Event]) -> None:
        """Collect events for the next call of ``tell``; first tokens and ends are sent at once."""
        events = [replace(event, row=ticket.choice) for event in events]
        last = events[-1]
        if isinstance(last, DoneEvent):
            if ticket.row is not None:
                events[-1] = replace(last, draft=self.drafter.of(ticket.row).name)
                if ticket.row.error:
                    log.error("a request failed", exc_info=ticket.row.error)
                    ticket.failure = ticket.row.error
            ticket.done = True
            self._live.pop(ticket.request.tag, None)
        self._news.append((ticket, events))
        first = not ticket.started and any(isinstance(e, TokenEvent) for e in events)
        ticket.started |= first
        if first or ticket.done:
            self._told = 0.0

    def _flush(self) -> None:
        news, self._news = self._news, []
        self._told = time.perf_counter()
        if news:
            self.tell(news)

    def _rest(self) -> None:
        """Free the cache of an idle server."""
        if self.loop.cache.nbytes:
            self.loop.resize(1, 0)
