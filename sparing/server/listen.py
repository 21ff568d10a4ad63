"""A socket, a service behind it, and an end in order."""

import signal
import socket

import uvicorn

from sparing.api import Engine
from sparing.errors import OptionError
from sparing.server.app import build_app
from sparing.server.service import Service
from sparing.server.settings import Defaults, Serving

BACKLOG = 1024
SHUTDOWN_S = 5  # beyond the grace of open requests: to send what there is to say


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises OptionError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise OptionError(
            f"host and port must be free to listen on, got {host}:{port}: {error}"
        ) from None
    listener.listen(BACKLOG)
    return listener


class Server(uvicorn.Server):
    """uvicorn's, which lets open requests come to an end before it leaves."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.service.drain()
        await super().shutdown(sockets)


def serve(engine: Engine, listener: socket.socket, serving: Serving, defaults: Defaults) -> None:
    """Answer until a signal comes: SIGTERM, or SIGINT, which is raised again at the end."""
    service = Service(engine, serving, defaults)
    config = uvicorn.Config(
        build_app(service),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=int(serving.grace_s) + SHUTDOWN_S,
    )
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # uvicorn has its own, and raises it again
    Server(config, service).run(sockets=[listener])
