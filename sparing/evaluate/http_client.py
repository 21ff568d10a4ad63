"""Asking a server over HTTP, and when its answer came: as little work as that takes."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TEXT = (b'"reasoning_content":"', b'"content":"', b'"text":"')  # what tokens look like in a stream


@dataclass(frozen=True)
class TimedResponse:
    """Seconds from sending the request to the ``first`` text and to the end (``seconds``), and new
    ``tokens``."""

    status: int
    seconds: float
    first: float | None
    tokens: int


async def ask(
    port: int, body: Mapping[str, Any], path: str = "/v1/chat/completions"
) -> TimedResponse:
    """One request on a connection of its own, streamed or not as the body says."""
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
    )
    begun = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head.encode() + content)
        parts: list[bytes] = []
        first = None
        while part := await reader.read(1 << 16):
            parts.append(part)
            if first is None and body.get("stream") and has_text(part):
                first = time.perf_counter() - begun
        seconds = time.perf_counter() - begun
    finally:
        writer.close()
    whole = b"".join(parts)
    status = int(whole.split(b" ", 2)[1]) if whole else 0
    stats = engine_stats(whole) if status == 200 else []
    return TimedResponse(status, seconds, first, sum(found["new_tokens"] for found in stats))


def has_text(part: bytes) -> bool:
    """Whether a piece of a stream says anything: an opening's empty text does not."""
    return any(mark in part and mark + b'"' not in part for mark in TEXT)


def engine_stats(answer: bytes) -> list[dict[str, Any]]:
    """The engine's stats of each choice, from the raw bytes of an answer of either kind."""
    found, mark = [], b'"stats":'
    for piece in answer.split(mark)[1:]:
        found.append(json.JSONDecoder().raw_decode(piece.decode("ascii", "replace"))[0])
    return found
