"""The service behind the routes: an engine, its scheduler and its runs."""

import asyncio
import os
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

from anyio import CapacityLimiter, to_thread

from sparing.api import Engine
from sparing.errors import SparingError
from sparing.model.token_bytes import TokenBytes
from sparing.server.errors import Refused, out_of_time, shutting_down
from sparing.server.metrics import Metrics
from sparing.server.requests import CommonRequest
from sparing.server.resolve import Resolver
from sparing.server.runs import LiveRun, RunRegistry
from sparing.server.scheduler import Closed, News, QueueFull, Scheduler, Ticket
from sparing.server.settings import RequestDefaults, ServerConfig


class Service:
    """An engine with its scheduler and runs; it uses one event loop, from ``start`` to ``stop``.

    ``replica``: which of several servers this is, told in the ids of its runs; empty: the only one
    """

    def __init__(
        self,
        engine: Engine,
        serving: ServerConfig | None = None,
        defaults: RequestDefaults | None = None,
        replica: str = "",
    ) -> None:
        self.engine, self.serving = engine, serving or ServerConfig()
        self.replica = replica
        self.created = int(time.time())
        self.models = names(engine.name, self.serving.served_model_name)
        self.tokens = TokenBytes(engine.chat.tokenizer)
        defaults = defaults or RequestDefaults()
        engine.switch(defaults.latent)  # raises now if the model has no latent steps
        self.scheduler = Scheduler(
            engine, self.serving, self._told, defaults.depth, defaults.memory.kv
        )
        self.room = self.scheduler.room
        self.resolver = Resolver(
            engine, self.serving, defaults, self.room, self.models, self.scheduler.loop.cache.stored
        )
        self.runs = RunRegistry(self.serving.keep_runs)
        self.metrics = Metrics(self.scheduler)
        self.stopping = False

    @property
    def model(self) -> str:
        """The name of the model in answers."""
        return self.models[0]

    def start(self) -> None:
        self._event_loop = asyncio.get_running_loop()
        self._one_by_one = CapacityLimiter(1)  # tokenizes one prompt at a time, on one core
        self.scheduler.start()

    async def open(self, asked: CommonRequest, prompts: Sequence[Any], prefix: str) -> LiveRun:
        """Submit a request; raises Refused."""
        draft = self.resolver.draft(asked)
        requests = await to_thread.run_sync(
            self.resolver.requests, asked, prompts, limiter=self._one_by_one
        )
        run = LiveRun(f"{prefix}-{self.replica}" if self.replica else prefix, requests)
        tickets = [
            Ticket(choice.request, draft, owner=run, choice=choice.index) for choice in run.choices
        ]
        for choice, ticket in zip(run.choices, tickets, strict=True):
            choice.ticket = ticket
        self.runs.add(run)
        try:
            self.scheduler.submit(tickets)
        except (QueueFull, Closed) as error:
            self.runs.live.pop(run.id)
            raise self._no_room(error, len(tickets)) from None
        return run

    def cancel(self, run: LiveRun, failure: Exception | None = None) -> None:
        """End a run early; an ended run does not change."""
        tickets = [choice.ticket for choice in run.choices if choice.ticket]
        if tickets:
            run.failure = run.failure or failure  # told at once, before the engine lets it go
            self.scheduler.cancel(tickets, failure)

    async def finish(self, run: LiveRun, left: Awaitable[None]) -> None:
        """Wait for a run's end; cancel it at the time limit or when ``left`` is done.

        ``left``: completes when the client disconnects. Raises Refused for a failed run.
        """
        waits = [asyncio.ensure_future(run.ended.wait()), asyncio.ensure_future(left)]
        seconds = self.serving.request_s
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not run.done:
                self.cancel(run, None if waits[1].done() else out_of_time(seconds))
                await run.ended.wait()
        except asyncio.CancelledError:
            self.cancel(run, shutting_down())
            raise
        finally:
            for task in waits:
                task.cancel()
        self.check(run)

    def check(self, run: LiveRun) -> None:
        """Raise Refused for a failed or cancelled run."""
        if run.failure is not None:
            raise refusal(run.failure)
        if any(c.done and c.done.finish_reason == "interrupted" for c in run.choices):
            raise Refused(409, "the run was cancelled", type_="cancelled", code="cancelled")

    def drain(self) -> None:
        """Refuse new requests; open ones have ``grace_s`` seconds to end."""
        self.stopping = True
        self.scheduler.drain()
        self._event_loop.call_later(self.serving.grace_s, self.fail_all)

    def fail_all(self) -> None:
        """End every open run with an error."""
        for run in list(self.runs.live.values()):
            self.cancel(run, shutting_down())

    async def stop(self) -> None:
        """End the engine's thread and all open runs."""
        await to_thread.run_sync(self.scheduler.close, shutting_down())

    def _told(self, news: News) -> None:
        """Called on the scheduler's thread: pass the news to the event loop."""
        self._event_loop.call_soon_threadsafe(self._take, news)

    def _take(self, news: News) -> None:
        for run in self.runs.take(news):
            self.metrics.ended(run, time.perf_counter() - run.begun)

    def _no_room(self, error: Exception, tickets: int) -> Refused:
        if isinstance(error, Closed):
            return shutting_down()
        most = self.serving.queue + self.serving.rows
        if tickets > most:
            return Refused(
                400,
                f"a request must have at most {most} choices here, got {tickets}; ask for fewer",
            )
        return Refused(
            429,
            f"{error}, at most {self.serving.queue} can wait; try again later",
            type_="rate_limit_error",
            code="queue_full",
            headers={"retry-after": "1"},
        )


def names(model: str, served: str | None) -> list[str]:
    """The names that requests may call the model by, first its name in answers.

    A path is served under its last component, and known by all of it too.
    """
    if served is not None:
        return [served]
    path = Path(model).expanduser()
    if not path.exists():
        return [model]
    own = os.path.basename(os.path.abspath(path))  # a link has its own name
    return list(dict.fromkeys([own, model]))


def refusal(failure: Exception) -> Refused:
    """The answer to a failure of the engine."""
    if isinstance(failure, Refused):
        return failure
    said = str(failure) if isinstance(failure, SparingError) else "see the server's log"
    return Refused(500, f"the engine failed: {said}", type_="server_error", code="engine_failed")
