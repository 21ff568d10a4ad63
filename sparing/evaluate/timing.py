"""Comparing the speed of things in one process, in turns, so that drift hits them alike."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from statistics import median
from typing import Any, TypeVar

READ_BYTES = 1 << 30
T = TypeVar("T")


def interleaved(
    arms: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of each arm in each round: A B C, A B C, ... after ``warm_up`` uncounted rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for round_ in range(warm_up + rounds):
        for name, run in arms.items():
            start = time.perf_counter()
            run()
            if round_ >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def alternating(groups: Iterable[Sequence[T]]) -> list[T]:
    """The first of each group, the second of each, and so on, as far as each goes."""
    return [some for nth in zip_longest(*groups) for some in nth if some is not None]


def paired_ratio(over: list[float], under: list[float]) -> float:
    """Median over rounds of over / under, round by round."""
    return median(a / b for a, b in zip(over, under, strict=True))


def in_turns(
    arms: Mapping[str, Callable[[], list[float]]], rounds: int
) -> dict[str, list[list[float]]]:
    """The seconds that each arm gives in each round, A B C, A B C, ..., after an uncounted one.

    An arm times itself, so what it does before and where it runs is not in its seconds.
    """
    seconds: dict[str, list[list[float]]] = {name: [] for name in arms}
    for round_ in range(1 + rounds):
        for name, run in arms.items():
            found = run()
            if round_:
                seconds[name].append(found)
    return seconds


def ratio(over: list[list[float]], under: list[list[float]]) -> float:
    """Of the medians of all seconds."""
    return middle(over) / middle(under)


def middle(rounds: list[list[float]]) -> float:
    return median(second for of_round in rounds for second in of_round)


def large_read(threads: int) -> Callable[[], Any]:
    """A read of ``READ_BYTES``, far beyond the caches: the machine's bandwidth.

    Each thread sums a part of its own. The sums are of integers: floats take longer to add than to
    read (25 GB/s where these are at 31).
    """
    import numpy as np

    parts = np.array_split(np.ones(READ_BYTES // 8, np.int64), threads)
    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(np.sum, parts))
