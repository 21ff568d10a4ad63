"""Batches of rows of similar length, in an order that depends only on the seed."""

from collections.abc import Iterator, Sequence

import numpy as np

POOL = 512  # rows shuffled together, then sorted by length; large enough for little padding


def bucketed(
    lengths: Sequence[int] | np.ndarray, tokens: int, seed: int | tuple[int, ...], epoch: int
) -> list[list[int]]:
    """One epoch's batches, each of at most ``tokens`` padded tokens, or of a single longer row.

    Rows are shuffled, sorted by length within pools and cut into batches; then the batches are
    shuffled.
    """
    random = np.random.default_rng([*(seed if isinstance(seed, tuple) else (seed,)), epoch])
    order = random.permutation(len(lengths))
    batches: list[list[int]] = []
    for start in range(0, len(order), POOL):
        pool = sorted(order[start : start + POOL].tolist(), key=lambda row: int(lengths[row]))
        batch: list[int] = []
        for row in pool:
            if batch and (len(batch) + 1) * int(lengths[row]) > tokens:
                batches.append(batch)
                batch = []
            batch.append(row)
        batches.append(batch)
    return [batches[i] for i in random.permutation(len(batches))]


def endless(
    lengths: Sequence[int] | np.ndarray,
    tokens: int,
    seed: int | tuple[int, ...],
    start: int = 0,
) -> Iterator[list[int]]:
    """Batches epoch after epoch, from batch ``start`` (for a resumed run)."""
    epoch = 0
    while True:
        batches = bucketed(lengths, tokens, seed, epoch)
        yield from batches[start:]
        start = max(0, start - len(batches))
        epoch += 1
