"""Problems through the engine: many rows at a time, a new one in as soon as one is done."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from sparing.api import Engine
from sparing.engine.cache import BLOCK_SLOTS, SlotCache
from sparing.engine.events import DoneEvent, Event
from sparing.engine.loop import Loop
from sparing.engine.result import Result
from sparing.engine.row import Request, Row
from sparing.engine.run import Run
from sparing.errors import PromptError
from sparing.options import Depth, Latent, Memory, Sampling
from sparing.tasks.problem import Problem


@dataclass(frozen=True)
class Settings:
    """How problems are answered; the options are those of ``Engine.generate``.

    ``raw``: without the chat template. ``sample_seed``: every problem draws with noise of its own,
    from this seed, its task and its id; so two runs differ only where their options do.
    """

    memory: Memory = field(default_factory=Memory)
    depth: Depth = field(default_factory=Depth)
    latent: Latent = field(default_factory=Latent)
    sampling: Sampling = field(default_factory=Sampling)
    template_options: Mapping[str, Any] | None = None
    raw: bool = False
    batch_size: int = 8
    sample_seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Every option as JSON, flat; the noise seed is ``sample_seed``, not ``sampling.seed``."""
        groups = ("memory", "depth", "latent", "sampling")
        found = {
            f"{group}.{name}": value
            for group in groups
            for name, value in getattr(self, group).model_dump().items()
        }
        del found["sampling.seed"]
        found["template_options"] = dict(self.template_options or {})
        return found | {n: getattr(self, n) for n in ("raw", "batch_size", "sample_seed")}

    def noise_seed(self, problem: Problem) -> int:
        """Of a problem's noise, 63 bits."""
        name = json.dumps([self.sample_seed, problem.task, problem.id])
        return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") >> 1

    def request(self, engine: Engine, problem: Problem, tag: int) -> Request:
        """A problem, ready to be admitted; raises PromptError that names it."""
        asked = engine.chat.question(problem.question, raw=self.raw)
        sampling = Sampling(**self.sampling.model_dump() | {"seed": self.noise_seed(problem)})
        try:
            return engine.request(
                asked,
                memory=self.memory,
                latent=self.latent,
                sampling=sampling,
                tag=tag,
                template_options=self.template_options,
            )
        except PromptError as error:
            raise PromptError(f"{problem.task}, problem {problem.id}: {error}") from None


@dataclass
class FinishedRow:
    """A finished row.

    ``index``: of its problem
    ``evictable_tokens``: of the thought; of all text where thoughts are not marked
    ``seconds``, ``kv_bytes_peak``: as ``answers`` says
    """

    index: int
    result: Result
    evictable_tokens: int
    seconds: float
    kv_bytes_peak: int
    budget: int | None = None
    max_new_tokens: int = 0


def answers(
    engine: Engine,
    problems: Sequence[Problem],
    settings: Settings | Sequence[Settings],
    wanted: Sequence[int] | None = None,
) -> Iterator[FinishedRow]:
    """Answer those of ``problems`` whose indices are ``wanted``, in the order in which they end.

    ``settings``: for all, or one each (then the first decides drafting and batch size).
    ``wanted`` None: all.

    ``seconds``: the row's share of the steps that it took part in, each step's time divided
    evenly among its live rows; so over all rows they add up to the time spent decoding.
    ``kv_bytes_peak``: what the row would hold alone, see ``own_bytes``; the cache is as large as
    its largest row needs, which says nothing about the others.
    ``slots_peak``: the most slots in use. ``budget``: the row's, in slots; None without one.

    Raises, before anything runs, what ``Engine.generate`` raises.
    """
    each = [settings] * len(problems) if isinstance(settings, Settings) else list(settings)
    requests = [
        s.request(engine, problem, i)
        for i, (s, problem) in enumerate(zip(each, problems, strict=True))
    ]
    if not requests:
        return iter(())
    loop = engine.loop(requests, each[0].depth, each[0].batch_size)
    return finished(loop, requests, range(len(problems)) if wanted is None else wanted)


def finished(
    loop: Loop, requests: Sequence[Request], wanted: Sequence[int]
) -> Iterator[FinishedRow]:
    """The rows of ``wanted`` requests through the loop, each as it ends.

    Raises the error of a row that fails: what it would have answered counts in no figure.
    """
    events: defaultdict[int, list[Event]] = defaultdict(list)
    seconds: defaultdict[int, float] = defaultdict(float)
    for step in Run(loop, [requests[index] for index in wanted]).steps():
        rows = {row.request.tag: row for row in step.rows}
        for index in rows:
            seconds[index] += step.seconds / len(rows)
        for event in step.events:
            index = event.row
            events[index].append(event)
            if isinstance(event, DoneEvent):
                row = rows[index]
                if row.error:
                    raise row.error
                yield finished_row(loop.cache, row, events.pop(index), seconds[index])


def finished_row(
    cache: SlotCache, row: Row, events: Sequence[Event], seconds: float
) -> FinishedRow:
    """A row at its end, by its events."""
    request = row.request
    return FinishedRow(
        request.tag,
        Result.of(row.transcript, events),
        row.transcript.evictable_tokens,
        seconds,
        own_bytes(cache, row),
        budget=request.budget.slots if request.budget else None,
        max_new_tokens=request.limits.max_new_tokens,
    )


def own_bytes(cache: SlotCache, row: Row) -> int:
    """Bytes of the slots that a finished row would have been given in a cache of its own.

    With a budget its slots are set aside before it starts; without one they are taken in blocks,
    up to its end. The bytes of a slot are measured: the cache's storages over its slots.
    """
    slots = row.request.slots
    if row.request.budget is None:
        # The last token has not been through the model: it takes no slot.
        used = max(row.transcript.position - 1, 1)
        slots = min(-(-used // BLOCK_SLOTS) * BLOCK_SLOTS, slots)
    return cache.nbytes // (cache.rows * cache.capacity) * slots
