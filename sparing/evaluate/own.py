"""Sparing as it is timed beside a baseline: prompts, greedy steps, passes over several tokens."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from sparing.api import Engine
from sparing.engine.cache import SlotCache
from sparing.engine.loop import Loop
from sparing.evaluate.bench_decode_text import distinct_ids
from sparing.model.inputs import RowInput
from sparing.options import Depth, Sampling

OFF = Depth(draft="off")


class Own:
    """A loop whose rows are full of given tokens, everything kept and no drafts."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.loop: Loop | None = None

    def fill(self, ids: Sequence[Sequence[int]], room: int) -> float:
        """Seconds of prompts, all of one length, up to the next token of each; ``room``: more
        tokens that are to come."""
        sampling = Sampling(temperature=0, max_new_tokens=room, ignore_eos=True)
        requests = [
            self.engine.request(list(row), sampling=sampling, tag=tag)
            for tag, row in enumerate(ids)
        ]
        self.loop = self.engine.loop(requests, OFF, len(requests))
        for request in requests:
            self.loop.admit(request)
        begun = time.perf_counter()
        while not self.loop.step():
            pass
        return time.perf_counter() - begun

    def steps(self, count: int) -> list[float]:
        """Seconds of each step of one token a row; the rows grow."""
        assert self.loop is not None
        return [seconds(self.loop.step) for _ in range(count)]

    def steps_within(self, wanted_s: float) -> float:
        """Steps a second, measured over ``wanted_s``."""
        assert self.loop is not None
        begun, done = time.perf_counter(), 0
        while (passed := time.perf_counter() - begun) < wanted_s:
            self.loop.step()
            done += 1
        return done / passed

    def passes(self, tokens: Sequence[int], count: int) -> list[float]:
        """Seconds of each pass over new tokens in the first row, all scored; the row stays as it
        is."""
        cache = self.cache
        cached = cache.lengths[0]
        cache.reserve(cached + len(tokens))
        run = pass_over(self.engine, cache, cached, tokens)
        return [seconds(run) for _ in range(count)]

    @torch.inference_mode()
    def nll(self, ids: Sequence[int]) -> float:
        """Negative log likelihood of all but the first id, in sum, from an empty cache."""
        self.fill([ids[:1]], len(ids))
        self.cache.reset(0)
        run = pass_over(self.engine, self.cache, 0, ids)
        self.cache.reserve(len(ids))
        each = cross_entropy(run().logits[:-1], torch.tensor(ids[1:]), reduction="none")
        return float(each.double().sum())

    @property
    def cache(self) -> SlotCache:
        assert self.loop is not None
        return self.loop.cache


def seconds(run: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def pass_over(
    engine: Engine, cache: SlotCache, cached: int, tokens: Sequence[int]
) -> Callable[[], Any]:
    """One pass over new tokens, all of them scored, behind ``cached`` slots."""
    new = RowInput(
        row=0,
        cached=cached,
        ids=list(tokens),
        positions=list(range(cached, cached + len(tokens))),
        scored=len(tokens),
    )
    return lambda: engine.decoder([new], cache)


def filled_cache(engine: Engine, cached: int, room: int) -> SlotCache:
    """A cache of one row, ``cached`` slots of it in use, with room behind them."""
    full = Own(engine)
    full.fill([distinct_ids(engine, cached)], room)
    full.cache.reserve(cached + room)
    return full.cache
