"""Check every request's API key and the limits of its body."""

import asyncio
import hmac
from collections.abc import Callable
from typing import Any

from sparing.server.errors import Refused
from sparing.server.static import FILES

OPEN_PATHS = frozenset(("/health", *FILES))  # without an API key
PATIENCE = 16  # a body up to this times too large is read to its end before the error is sent
CLOSE = {"connection": "close"}


class Gate:
    """ASGI middleware: checks the API key, and reads the whole body within its limits.

    ``refused`` is called with the status of each refusal.
    """

    def __init__(
        self,
        app: Any,
        body_bytes: int,
        body_s: float,
        api_key: str | None,
        refused: Callable[[int], None],
    ) -> None:
        self.app, self.body_bytes, self.body_s = app, body_bytes, body_s
        self._key = None if api_key is None else f"Bearer {api_key}".encode()
        self._refused = refused

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            self._check_key(scope)
            body = await self._body(scope, receive)
        except Refused as error:
            self._refused(error.status)
            scope.setdefault("state", {})["reason"] = error
            await error.response()(scope, receive, send)
            return
        if body is not None:
            await self.app(scope, replayed(body, receive), send)

    def _check_key(self, scope: Any) -> None:
        if self._key is None or scope["path"] in OPEN_PATHS:
            return
        given = next((v for k, v in scope["headers"] if k == b"authorization"), b"")
        if not hmac.compare_digest(given, self._key):
            raise Refused(
                401,
                "an API key must be given as `Authorization: Bearer KEY`, got none or a wrong one; "
                "pass the server's key",
                type_="authentication_error",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )

    async def _body(self, scope: Any, receive: Any) -> bytes | None:
        """The whole body; None if the client has disconnected."""
        try:
            async with asyncio.timeout(self.body_s):
                return await self._read(receive)
        except TimeoutError:
            raise Refused(
                408,
                f"a body must arrive within {self.body_s:g} s; send a smaller one",
                type_="timeout_error",
                code="slow_body",
                headers=CLOSE,
            ) from None

    async def _read(self, receive: Any) -> bytes | None:
        parts, size, more = [], 0, True
        while more and size <= PATIENCE * self.body_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part, more = message.get("body", b""), message.get("more_body", False)
            size += len(part)
            if size <= self.body_bytes:
                parts.append(part)
        if size > self.body_bytes:
            raise Refused(
                413,
                f"a body must have at most {self.body_bytes} bytes, got more; send a smaller one",
                code="body_too_large",
                headers=CLOSE,
            )
        return b"".join(parts)


def replayed(body: bytes, receive: Any) -> Any:
    """A ``receive`` that returns the body first, then further messages."""
    told = False

    async def again() -> Any:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
