"""`sparing bench serve`: many at once, the wait for a first token, memory that stays, overhead."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.progress import Progress

from sparing.api import Engine
from sparing.evaluate.http_client import TimedResponse, ask
from sparing.evaluate.report import Figure
from sparing.evaluate.server_process import ServerProcess
from sparing.evaluate.statistics import geometric_mean
from sparing.model.chat import Message
from sparing.options import Depth, Sampling

CONCURRENT, LOAD = 32, 8
EARLY = 10  # resident memory: after a tenth of the requests, and after all
WARM_UP = 4
PAIRS = 8  # of server and engine, a round
SETTLE_S = 0.5
Measured = tuple[list[Figure], dict[str, Any]]


@dataclass(frozen=True)
class Serve:
    """What is asked: ``questions`` as chat, greedy, at most ``new_tokens`` (None: to their end).

    ``rounds`` of one after another against ``CONCURRENT`` at once, of ``probes`` for first tokens,
    idle and under load, and of server against engine; ``requests`` in all for the memory.
    """

    questions: Sequence[str]
    new_tokens: int | None
    rounds: int
    probes: int
    requests: int

    def messages(self, number: int) -> list[Message]:
        return [{"role": "user", "content": self.questions[number % len(self.questions)]}]


def bench_serve(engine: Engine, flags: Sequence[str], plan: Serve, progress: Progress) -> Measured:
    """All figures, and what they are computed from. ``flags``: of the server, for the same model as
    the ``engine``, which runs in this process to compare with."""
    figures: list[Figure] = []
    raw: dict[str, Any] = {}
    with ServerProcess(flags) as child, progress:
        bench = ServeBench(engine, child, plan)
        asyncio.run(bench.warm_up())
        for what, measure in bench.parts.items():
            task = progress.add_task(what, total=None)
            found, kept = measure()
            figures += found
            raw[what] = kept
            progress.update(task, total=1, completed=1)
    return figures, raw


class ServeBench:
    """The parts of the benchmark, on one server."""

    def __init__(self, engine: Engine, child: ServerProcess, plan: Serve) -> None:
        self.engine, self.child, self.plan = engine, child, plan
        self.parts = {
            "throughput": self.throughput,
            "first token": self.first_token,
            "overhead": self.overhead,
            "memory": self.memory,
        }

    def ask(self, number: int, **more: Any) -> Any:
        """The plan's ``number``-th request, to be awaited."""
        body: dict[str, Any] = {
            "model": self.engine.name,
            "messages": self.plan.messages(number),
            "temperature": 0,
        }
        if self.plan.new_tokens is not None:
            body["max_completion_tokens"] = self.plan.new_tokens
        return ask(self.child.port, body | more)

    async def warm_up(self) -> None:
        for number in range(WARM_UP):
            await self.ask(number)
        await asyncio.gather(*(self.ask(number) for number in range(LOAD)))

    def throughput(self) -> Measured:
        """The same requests one after another, and all at once, drafted and not: a lone request
        gains most by drafts, many share the weights."""
        figures: list[Figure] = []
        raw = {}
        for draft in (None, "off"):
            rounds = [asyncio.run(self._throughput(n, draft)) for n in range(self.plan.rounds)]
            figures += throughput_figures(rounds, draft)
            raw[draft or "default"] = rounds
        return figures, raw

    async def _throughput(self, number: int, draft: str | None) -> dict[str, Any]:
        numbers = [number * CONCURRENT + i for i in range(CONCURRENT)]
        options = {"sparing": {"depth": {"draft": draft}}} if draft else {}
        begun = time.perf_counter()
        alone = [await self.ask(n, **options) for n in numbers]
        between = time.perf_counter()
        together = await asyncio.gather(*(self.ask(n, **options) for n in numbers))
        ended = time.perf_counter()
        return {
            "alone": summed(alone, between - begun),
            "together": summed(together, ended - between),
        }

    def first_token(self) -> Measured:
        """A short streamed request to an idle server and beside ``LOAD`` others."""
        idle, loaded = asyncio.run(self._first_token())
        over = median(loaded) / median(idle)
        alone = "first token of an idle server, s, median"
        beside = f"first token beside {LOAD} requests over idle, medians"
        return [
            Figure("first_token_s/idle", median(idle), "s", "lower", alone),
            Figure(f"first_token_{LOAD}_over_idle", over, "x", "lower", beside),
        ], {"idle": idle, "loaded": loaded}

    async def _first_token(self) -> tuple[list[float], list[float]]:
        probes, short = self.plan.probes, {"stream": True, "max_completion_tokens": 1}
        idle = [first(await self.ask(number, **short)) for number in range(probes)]
        stop = asyncio.Event()

        async def worker(number: int) -> None:
            while not stop.is_set():
                await self.ask(number)
                number += LOAD

        workers = [asyncio.ensure_future(worker(number)) for number in range(LOAD)]
        await asyncio.sleep(SETTLE_S)
        loaded = []
        for number in range(probes):
            loaded.append(first(await self.ask(number, **short)))
            await asyncio.sleep(0.01 * (number % 7))  # not in step with the engine's
        stop.set()
        await asyncio.gather(*workers)
        return idle, loaded

    def overhead(self) -> Measured:
        """A streamed request against the same in this process, without HTTP, in turns."""
        figures, raw = [], {}
        for draft in ("off", "auto"):
            pairs = [self._overhead(number, draft) for number in range(self.plan.rounds * PAIRS)]
            ratios = [pair["server"] / pair["engine"] for pair in pairs[1:]]
            ratio, low, high = geometric_mean(ratios)
            name = f"server_over_engine/{draft}"
            what = f"one streamed request's time per token over the engine's, draft {draft}"
            figures.append(Figure(name, ratio, "x", "lower", what, low, high))
            raw[draft] = pairs
        return figures, raw

    def _overhead(self, number: int, draft: Any) -> dict[str, float]:
        """Seconds a token of either; they take turns in coming first."""
        sides = {"engine": self._here, "server": self._there}
        order = list(sides) if number % 2 else list(reversed(sides))
        return {side: sides[side](number, draft) for side in order}

    def _here(self, number: int, draft: Any) -> float:
        sampling = Sampling(temperature=0, max_new_tokens=self.plan.new_tokens)
        begun = time.perf_counter()
        [result] = self.engine.generate(
            [self.plan.messages(number)], None, Depth(draft=draft), None, sampling
        )
        return (time.perf_counter() - begun) / result.stats.new_tokens

    def _there(self, number: int, draft: Any) -> float:
        options = {"stream": True, "sparing": {"depth": {"draft": draft}}}
        answered = asyncio.run(self.ask(number, **options))
        return answered.seconds / max(answered.tokens, 1)

    def memory(self) -> Measured:
        """Resident bytes of the idle server, early and late, ``LOAD`` requests at a time."""
        early = max(self.plan.requests // EARLY, 1)
        before = asyncio.run(self._resident_after(0, early))
        after = asyncio.run(self._resident_after(early, self.plan.requests))
        what = f"resident memory after {self.plan.requests} requests over that after {early}"
        figure = Figure("resident_late_over_early", after / before, "x", "lower", what)
        return [figure], {"early": before, "late": after}

    async def _resident_after(self, begin: int, end: int) -> int:
        numbers = iter(range(begin, end))

        async def worker() -> None:
            for number in numbers:
                await self.ask(number)

        await asyncio.gather(*(worker() for _ in range(LOAD)))
        await asyncio.sleep(SETTLE_S)
        return self.child.resident_bytes


def throughput_figures(rounds: Sequence[dict[str, Any]], draft: str | None) -> list[Figure]:
    """Of rounds with the server's default drafter, or with the one that is named."""
    one = [r["alone"]["tokens"] / r["alone"]["seconds"] for r in rounds]
    many = [r["together"]["tokens"] / r["together"]["seconds"] for r in rounds]
    ratio = median(b / a for a, b in zip(one, many, strict=True))
    finished = sum(r["together"]["finished"] for r in rounds) / (CONCURRENT * len(rounds))
    ending, how = (f"/{draft}", f", draft {draft}") if draft else ("", "")
    one_by_one, at_once = f"one request at a time{how}", f"{CONCURRENT} requests at once{how}"
    over = f"{at_once}: tokens/s in all over one request's"
    found = {
        f"finished/{CONCURRENT}": (finished, "share", f"{at_once}: share that finished"),
        "tokens_per_s/1": (median(one), "tokens/s", f"{one_by_one}, tokens/s"),
        f"tokens_per_s/{CONCURRENT}": (median(many), "tokens/s", f"{at_once}, tokens/s in all"),
        f"throughput_{CONCURRENT}_over_1": (ratio, "x", over),
    }
    return [
        Figure(name + ending, value, unit, "higher", what)
        for name, (value, unit, what) in found.items()
    ]


def summed(answers: Sequence[TimedResponse], seconds: float) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "tokens": sum(answer.tokens for answer in answers),
        "finished": sum(answer.status == 200 and answer.tokens > 0 for answer in answers),
    }


def first(answer: TimedResponse) -> float:
    """Seconds to the first text; where the only token says nothing, to the end."""
    return answer.seconds if answer.first is None else answer.first
