"""Run the server on a socket until a signal, and shut it down in order."""

import asyncio
import logging
import signal
import socket
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from sparing.api import Engine
from sparing.server.app import build_app
from sparing.server.service import Service
from sparing.server.settings import RequestDefaults, ServerConfig

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
    """uvicorn's server; at a shutdown open requests have a grace period."""

    def __init__(self, service: Service) -> None:
        serving = service.serving
        config = uvicorn.Config(
            build_app(service),
            http=with_head_timeout(serving.body_s),
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            limit_concurrency=2 * (serving.rows + serving.queue) + SPARE_CONNECTIONS,
            timeout_graceful_shutdown=int(serving.grace_s) + FAREWELL_S,
        )
        super().__init__(config)
        self.service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.service.runs.live:
            log.warning("stopping: open requests have %g s", self.service.serving.grace_s)
        self.service.drain()
        await super().shutdown(sockets)


def serve(
    engine: Engine, listener: socket.socket, serving: ServerConfig, defaults: RequestDefaults
) -> None:
    """Answer until SIGTERM, or SIGINT, which is raised again at the end."""
    server = Server(Service(engine, serving, defaults))
    # uvicorn installs this handler later, once it answers; at its end it raises the signal again.
    signal.signal(signal.SIGTERM, server.handle_exit)
    server.run(sockets=[listener])
