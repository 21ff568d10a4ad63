"""The ASGI app of a server from its first moment: it answers while the model still loads."""

import asyncio
from typing import Any

from sparing.server.errors import AsciiJSON, shutting_down
from sparing.server.schemas import Health


class Front:
    """Answers ``/health`` with 503 until it is opened; other requests wait, then get the app.

    ``kv_bytes``: the limit of the server that loads
    """

    def __init__(self, kv_bytes: int) -> None:
        self._loading = Health(
            status="loading", live=0, waiting=0, kv_bytes=0, kv_bytes_limit=kv_bytes
        )
        self._app: Any = None
        self._opened = asyncio.Event()

    def open(self, app: Any) -> None:
        """Pass all requests to ``app``; None: the model could not be loaded."""
        self._app = app
        self._opened.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if not self._opened.is_set() and scope["path"].rstrip("/") == "/health":
            loading = AsciiJSON(self._loading.model_dump(), 503, {"retry-after": "1"})
            await loading(scope, receive, send)
            return
        await self._opened.wait()
        await (self._app or shutting_down().response())(scope, receive, send)
