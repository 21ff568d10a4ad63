"""Which words of a thought latents stand in for: runs of tokens that nothing looks back at."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from sparing.train.examples import SHOWN, TAUGHT, Encoded

LEAST, LONGEST = 2, 12  # tokens of a span
PER_LATENT = 6  # tokens that one latent stands for


@dataclass(frozen=True)
class Span:
    """The tokens from ``begin`` to before ``end``, and so many ``latents`` in their place."""

    begin: int
    end: int
    latents: int

    def __len__(self) -> int:
        return self.end - self.begin


def droppable(
    ids: Sequence[int], roles: Sequence[int], start: Sequence[int], end: Sequence[int]
) -> Bool[np.ndarray, " T"]:
    """Tokens inside the first thought, ``start`` and ``end`` its markers, that may go: not what is
    copied from far back, nor a mistake that is only shown, nor the token before the end."""
    taught = np.asarray(roles) == TAUGHT
    begin = int(np.argmax(np.asarray(roles) != SHOWN))
    opened, closed = find(ids, start, begin), find(ids, end, begin)
    inside = np.zeros(len(ids), bool)
    if closed is not None:
        inside[begin if opened is None else opened + len(start) : closed - 1] = True
    return taught & inside


def find(ids: Sequence[int], marker: Sequence[int], begin: int) -> int | None:
    """Where the marker first stands."""
    found = range(begin, len(ids) - len(marker) + 1)
    return next((at for at in found if list(ids[at : at + len(marker)]) == list(marker)), None)


def choose(
    values: Float[np.ndarray, " T"],
    free: Bool[np.ndarray, " T"],
    goal: float,
    most: int,
    k: int,
) -> list[Span]:
    """Spans of ``free`` tokens with ``goal`` tokens in all, or as near as ``most`` spans come.

    The lowest bar on ``values`` is looked for under which runs of ``LEAST`` tokens or more add up
    to that; longer ones than ``LONGEST`` are parted by a token that stays. Long spans first: each
    costs a latent. One latent stands for ``PER_LATENT`` tokens, at most ``k`` for a span.
    """
    bars = np.unique(values[free]).tolist()
    low, high = 0, len(bars) - 1
    while low < high:
        middle = (low + high) // 2
        enough = sum(map(len, largest(values, free, bars[middle], most))) >= goal
        low, high = (low, middle) if enough else (middle + 1, high)
    taken: list[Span] = []
    dropped = 0
    for run in largest(values, free, bars[low], most) if len(bars) else []:
        if dropped >= goal:
            break
        dropped += len(run)
        taken.append(Span(run.start, run.stop, min(-(-len(run) // PER_LATENT), k)))
    return sorted(taken, key=lambda span: span.begin)


def largest(
    values: Float[np.ndarray, " T"], free: Bool[np.ndarray, " T"], bar: float, most: int
) -> list[range]:
    """The ``most`` longest runs of free tokens whose values are not above ``bar``."""
    marked = np.concatenate([[False], free & (values <= bar), [False]])
    edges = np.flatnonzero(marked[1:] != marked[:-1])
    runs = []
    for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        pieces = range(begin, end, LONGEST + 1)
        runs += [range(at, min(at + LONGEST, end)) for at in pieces]
    long = [run for run in runs if len(run) >= LEAST]
    return sorted(long, key=lambda run: (-len(run), run.start))[:most]


def shorten(
    example: Encoded, spans: Sequence[Span], token: int, taught: bool
) -> tuple[Encoded, list[int]]:
    """Latents in the place of each span; and where the token behind each span now stands."""
    ids: list[int] = []
    roles: list[int] = []
    behind, at = [], 0
    for span in spans:
        ids += [*example.ids[at : span.begin], *[token] * span.latents]
        roles += [*example.roles[at : span.begin], *[TAUGHT if taught else SHOWN] * span.latents]
        at = span.end
        behind.append(len(ids))
    return Encoded([*ids, *example.ids[at:]], [*roles, *example.roles[at:]], example.task), behind


def packed(spans: Sequence[Span], length: int) -> Int[np.ndarray, " T"]:
    """Spans as a number a token: latents at the first of each, -1 at its others, else 0."""
    found = np.zeros(length, np.int8)
    for span in spans:
        found[span.begin : span.end] = -1
        found[span.begin] = span.latents
    return found


def unpacked(numbers: Int[np.ndarray, " T"]) -> list[Span]:
    """The spans again."""
    begins = np.flatnonzero(numbers > 0).tolist()
    spans = []
    for begin in begins:
        end = begin + 1
        while end < len(numbers) and numbers[end] == -1:
            end += 1
        spans.append(Span(begin, end, int(numbers[begin])))
    return spans
