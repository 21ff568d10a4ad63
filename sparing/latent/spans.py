"""Choose the words of a thought to replace by latents: runs of tokens of the least value."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from sparing.train.examples import SHOWN, TAUGHT, Encoded

LEAST = 2  # tokens of a span
BARS = 257  # quantiles in the search for the bar


@dataclass(frozen=True)
class Span:
    """The tokens ``begin`` to ``end`` - 1, and the number of ``latents`` in their place."""

    begin: int
    end: int
    latents: int

    def __len__(self) -> int:
        return self.end - self.begin


def droppable(
    ids: Sequence[int], roles: Sequence[int], start: Sequence[int], end: Sequence[int]
) -> Bool[np.ndarray, " T"]:
    """Mark the replaceable tokens inside the first thought.

    Not replaceable are recalled tokens (copied from far back), shown tokens (mistakes), and the
    token before the end marker. ``start``, ``end``: the markers' ids
    """
    taught = np.asarray(roles) == TAUGHT
    begin = int(np.argmax(np.asarray(roles) != SHOWN))
    opened, closed = find(ids, start, begin), find(ids, end, begin)
    inside = np.zeros(len(ids), bool)
    if closed is not None:
        inside[begin if opened is None else opened + len(start) : closed - 1] = True
    return taught & inside


def find(ids: Sequence[int], marker: Sequence[int], begin: int) -> int | None:
    """The offset of the first marker from ``begin``; None without one."""
    found = range(begin, len(ids) - len(marker) + 1)
    return next((at for at in found if list(ids[at : at + len(marker)]) == list(marker)), None)


def bar_for(
    values: Sequence[Float[np.ndarray, " _T"]],
    thoughts: Sequence[Bool[np.ndarray, " _T"]],
    share: float,
    most: int,
) -> float:
    """The lowest bar on ``values`` at which the spans hold ``share`` of the tokens in ``thoughts``.

    At most twice that share of the tokens lies below the bar, so the spans may hold less. One bar
    for all examples is a rule that a model can learn.
    """
    inside = np.concatenate([v[thought] for v, thought in zip(values, thoughts, strict=True)])
    if not len(inside) or not share:
        return float("-inf")
    bars = np.quantile(inside, np.linspace(0, min(2 * share, 1.0), BARS))
    low, high = 0, BARS - 1
    while low < high:
        middle = (low + high) // 2
        pairs = zip(values, thoughts, strict=True)
        marked = (thought & (v <= bars[middle]) for v, thought in pairs)
        runs = (run for gone in marked for run in largest(gone, most))
        enough = sum(map(len, runs)) >= share * len(inside)
        low, high = (low, middle) if enough else (middle + 1, high)
    return float(bars[low])


def choose(gone: Bool[np.ndarray, " T"], most: int, k: int, per: int) -> list[Span]:
    """The ``most`` longest runs of at least ``LEAST`` tokens in ``gone``, as spans.

    A span gets one latent for every ``per`` tokens, at most ``k``.
    """
    runs = largest(gone, most)
    spans = [Span(run.start, run.stop, min(-(-len(run) // per), k)) for run in runs]
    return sorted(spans, key=lambda span: span.begin)


def largest(gone: Bool[np.ndarray, " T"], most: int) -> list[range]:
    """The ``most`` longest runs of tokens in ``gone``, the longest first."""
    marked = np.concatenate([[False], gone, [False]])
    edges = np.flatnonzero(marked[1:] != marked[:-1])
    runs = map(range, edges[::2].tolist(), edges[1::2].tolist())
    long = [run for run in runs if len(run) >= LEAST]
    return sorted(long, key=lambda run: (-len(run), run.start))[:most]


def shorten(
    example: Encoded, spans: Sequence[Span], token: int, taught: bool
) -> tuple[Encoded, list[int]]:
    """Replace each span by latents, each for an equal share of its words, in order.

    Returns the example, and the new offset of the token behind each span.
    """
    ids: list[int] = []
    roles: list[int] = []
    dropped: dict[int, list[int]] = {}
    behind, at = [], 0
    for span in spans:
        words = np.array_split(example.ids[span.begin : span.end], span.latents)
        first = len(ids) + span.begin - at
        dropped |= {first + i: each.tolist() for i, each in enumerate(words)}
        ids += [*example.ids[at : span.begin], *[token] * span.latents]
        roles += [*example.roles[at : span.begin], *[TAUGHT if taught else SHOWN] * span.latents]
        at = span.end
        behind.append(len(ids))
    ids += example.ids[at:]
    return Encoded(ids, [*roles, *example.roles[at:]], example.task, dropped), behind
