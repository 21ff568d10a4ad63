"""Run the server on a socket until a signal, and shut it down in order."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from sparing.server.app import build_app
from sparing.server.front import Front
from sparing.server.service import Service
from sparing.server.settings import ServerConfig

SPARE_CONNECTIONS = 128  # beyond two for each possible request
FAREWELL_S = 5  # beyond the grace period, to send the last responses

log = logging.getLogger("sparing")


def with_head_timeout(head_s: float) -> type[H11Protocol]:
    """uvicorn's protocol that closes a connection without a request after ``head_s`` seconds."""

    class Impatient(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is h11.IDLE:
                self._wait()
            else:
                self._stop()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def _wait(self) -> None:
            if self._timer is None and not self.transport.is_closing():
                self._timer = self.loop.call_later(head_s, self.transport.close)

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Impatient


class Server(uvicorn.Server):
    """uvicorn's server around a service that is made once the port answers.

    ``make``: makes the service, on a thread of its own: torch's thread pool belongs to the first
        thread that uses it, and must not share the cores with this one
    ``ready``: called with the service when requests are answered
    ``failure``: the error of ``make``

    At a shutdown open requests have a grace period.
    """

    def __init__(
        self,
        serving: ServerConfig,
        make: Callable[[], Service],
        ready: Callable[[Service], None] = lambda service: None,
    ) -> None:
        self.front = Front(serving.kv_bytes)
        config = uvicorn.Config(
            self.front,
            http=with_head_timeout(serving.body_s),
            loop="asyncio",  # whatever else is installed: Ray brings uvloop
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            limit_concurrency=2 * (serving.rows + serving.queue) + SPARE_CONNECTIONS,
            timeout_graceful_shutdown=int(serving.grace_s) + FAREWELL_S,
        )
        super().__init__(config)
        self.make, self.ready = make, ready
        self.service: Service | None = None
        self.failure: BaseException | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._opening = asyncio.ensure_future(self._open())

    async def _open(self) -> None:
        """Make the service and pass requests to it; a failure ends the server."""
        try:
            with ThreadPoolExecutor(1) as thread:
                service = await asyncio.wrap_future(thread.submit(self.make))
            app = build_app(service)
            service.start()
        except BaseException as error:  # whatever it is, ``serve`` raises it
            self.failure, self.should_exit = error, True
            self.front.open(None)
            return
        self.service = service
        self.front.open(app)
        self.ready(service)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.service is None and self.failure is None:
            os._exit(128 + sig)  # no request is open, and loading cannot be interrupted
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        service = self.service
        if service is not None:
            if service.runs.live:
                log.warning("stopping: open requests have %g s", service.serving.grace_s)
            service.drain()
        await super().shutdown(sockets)
        if service is not None and not self.force_exit:
            await service.stop()


def serve(
    listener: socket.socket,
    serving: ServerConfig,
    make: Callable[[], Service],
    ready: Callable[[Service], None],
) -> None:
    """Answer until SIGTERM, or SIGINT, which is raised again at the end.

    Raises what ``make`` raises.
    """
    server = Server(serving, make, ready)
    # uvicorn installs this handler later, once it answers; at its end it raises the signal again.
    before = signal.signal(signal.SIGTERM, server.handle_exit)
    try:
        server.run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, before)
    if server.failure is not None:
        raise server.failure
