"""Comparing the speed of things in one process, in turns, so that drift hits them alike."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from statistics import median
from typing import Any, TypeVar

import torch

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


def large_read() -> Callable[[], Any]:
    """A read of ``READ_BYTES``, far beyond the caches, by all threads: the machine's bandwidth."""
    block = torch.ones(READ_BYTES // 4)
    return block.sum
