"""ASGI middleware around all routes: plain paths, request ids, and a log line a request."""

import logging
import time
from collections.abc import Mapping
from typing import Any

log = logging.getLogger("sparing")
UNPREFIXED = ("/chat/completions", "/completions", "/models")  # of clients without /v1
LONGEST_ID = 512  # characters of a request id that is given back


def plain(path: str) -> str:
    """A path as the routes have it: without a slash at its end, with /v1 where it belongs."""
    path = path.rstrip("/") or "/"
    return f"/v1{path}" if path in UNPREFIXED else path


class Records:
    """Gives a request's id back and logs the request at its end.

    Routes put into the request's state what is told there: the ``reason`` of a refusal, the
    ``run`` and its ``usage``.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500
        state = scope.setdefault("state", {})
        given = next((v for k, v in scope["headers"] if k == b"x-request-id"), None)

        async def sending(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if given is not None and len(given) <= LONGEST_ID:
                    others = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
                    message = message | {"headers": [*others, (b"x-request-id", given)]}
            await send(message)

        try:
            await self.app(scope | {"path": plain(scope["path"])}, receive, sending)
        finally:
            seconds = time.perf_counter() - begun
            reason = failure(state)
            level = logging.WARNING if status >= 500 or reason else logging.INFO
            log.log(level, "%s", line(scope, status, seconds, state))


def line(scope: Any, status: int, seconds: float, state: Mapping[str, Any]) -> str:
    """Method, path, status, tokens (prompt + new), seconds, and the reason of an error."""
    path = (scope.get("raw_path") or scope["path"].encode()).decode("ascii", "backslashreplace")
    parts = [scope["method"], path, str(status)]
    if told := state.get("usage"):
        usage = told()
        parts.append(f"{usage.prompt_tokens}+{usage.completion_tokens} tokens")
    parts.append(f"{seconds:.2f} s")
    reason = failure(state) or state.get("reason")
    return " ".join(parts) + (f": {' '.join(str(reason).split())}" if reason else "")


def failure(state: Mapping[str, Any]) -> Exception | None:
    """The error that ended a run early, streamed or not."""
    run = state.get("run")
    return run.failure if run is not None else None
