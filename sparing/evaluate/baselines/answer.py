"""What a baseline says to a request."""

from dataclasses import dataclass
from typing import Any, Protocol

from sparing.engine.row import Request
from sparing.engine.sampling import Sampler
from sparing.engine.transcript import Transcript
from sparing.model.chat import ChatFormat


@dataclass(frozen=True)
class BaselineAnswer:
    """New tokens.

    ``kv_bytes``: of the keys and values at their end; None where the engine does not tell.
    ``times``: seconds from the beginning to each token; None likewise.
    """

    ids: list[int]
    kv_bytes: int | None
    times: list[float] | None = None


class Baseline(Protocol):
    """Answers a request: its prompt, its way of drawing with another generator's noise, its end."""

    def __call__(self, request: Request) -> BaselineAnswer: ...


def room(request: Request) -> int:
    """How many new tokens a request may have."""
    limits = request.limits
    return min(limits.max_new_tokens, limits.context - len(request.prompt.ids))


def transcribe(chat: ChatFormat, request: Request, ids: list[int], vocabulary: int) -> Transcript:
    """What Sparing makes of a baseline's tokens: which of them are thought, answer and end."""
    transcript = Transcript(chat, request.prompt, request.sampler, request.limits, vocabulary)
    for token in ids:
        transcript.append(token)
        if transcript.finish_reason:
            break
    return transcript


def asked(request: Request) -> dict[str, Any]:
    """A request as a script's ``generate`` takes it."""
    return {
        "ids": list(request.prompt.ids),
        "new_tokens": room(request),
        "ends": sorted(request.limits.end_ids),
        "sampler": drawing(request.sampler),
    }


def drawing(sampler: Sampler) -> dict[str, Any]:
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
    return {name: getattr(sampler, name) for name in names}
