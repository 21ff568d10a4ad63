"""Server-sent events: stream a run in chunks or event by event."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from starlette.responses import Response

from sparing.engine.events import Event
from sparing.server.errors import Refused, out_of_time
from sparing.server.runs import LiveRun
from sparing.server.service import Service
from sparing.server.writers import ChatWriter, TextWriter

PING_S = 15.0  # a comment is sent after this silence, so that proxies keep the connection
PING = b": ping\n\n"
SLACK_S = 5.0  # for the client to receive the timeout's error
DONE = b"data: [DONE]\n\n"


class EventStream(Response):
    """Streams ``parts``.

    ``left``: called if the client disconnects before the end, or does not receive all within
        ``seconds`` + ``SLACK_S``
    """

    media_type = "text/event-stream"

    def __init__(
        self, parts: AsyncIterator[bytes], seconds: float, headers: dict[str, str],
        left: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.parts, self.seconds, self.left = parts, seconds, left
        self.status_code, self.background = 200, None
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no"} | headers)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        writer = asyncio.ensure_future(self._write(send))
        listener = asyncio.ensure_future(disconnected(receive))
        try:
            await asyncio.wait((writer, listener), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not writer.done():
                self.left()
            for task in (writer, listener):
                task.cancel()
            with suppress(asyncio.CancelledError):
                await writer

    async def _write(self, send: Any) -> None:
        try:
            async with asyncio.timeout(self.seconds + SLACK_S):
                async for part in self.parts:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
        except TimeoutError:
            self.left()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def disconnected(receive: Any) -> None:
    """Wait until the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass


def data(content: Any) -> bytes:
    """One message, in ASCII: no character of it ends a line, and lone surrogates are escaped."""
    return b"data: " + json.dumps(content, separators=(",", ":")).encode() + b"\n\n"


async def poll_events(run: LiveRun, seconds: float) -> AsyncIterator[bool]:
    """Yields True for new events of a run, its end included, and False when a ping is due.

    Raises TimeoutError ``seconds`` after the run began.
    """
    seen = -1
    while not run.done or seen < len(run.events):
        if seen < len(run.events):
            seen = len(run.events)
            yield True
            continue
        left = run.begun + seconds - time.perf_counter()
        if left <= 0:
            raise TimeoutError
        try:
            async with asyncio.timeout(min(PING_S, left)):
                await run.news()
        except TimeoutError:
            yield False


async def completion(
    service: Service, run: LiveRun, teller: ChatWriter | TextWriter
) -> AsyncIterator[bytes]:
    """Stream a run in OpenAI's format; a failure is a message with an error."""
    yield b"".join(map(data, teller.opening()))
    seconds = service.serving.request_s
    try:
        async for news in poll_events(run, seconds):
            told = b"".join(map(data, teller.news())) if news else PING
            if told:
                yield told
        service.check(run)
    except TimeoutError:
        service.cancel(run, out_of_time(seconds))
        yield data(out_of_time(seconds).body)
    except Refused as error:
        yield data(error.body)
    else:
        yield b"".join(map(data, teller.last())) + DONE


async def events(service: Service, run: LiveRun, after: int) -> AsyncIterator[bytes]:
    """Stream a run's events, numbered from 0, after the number ``after``."""
    told = after + 1
    async for news in poll_events(run, service.serving.request_s):
        new = run.events[told:] if news else []
        numbered = [event(number, e) for number, e in enumerate(new, told)]
        told += len(new)
        if numbered or not news:
            yield b"".join(numbered) or PING


def event(number: int, content: Event) -> bytes:
    return f"id: {number}\nevent: {content.type}\n".encode() + data(content.to_dict())
