"""`sparing bench depth`: what drafting gives, drafter by drafter, on groups of prompts."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np
import torch
from rich.progress import Progress

from sparing.api import Engine
from sparing.depth.find import Known
from sparing.engine.events import LayersEvent, TokenEvent
from sparing.engine.result import Result
from sparing.evaluate.bench_decode import generate
from sparing.evaluate.intervals import paired_bootstrap
from sparing.evaluate.report import Figure
from sparing.evaluate.timing import interleaved
from sparing.model.chat import PromptLike
from sparing.options import Depth, Sampling

DRAFTERS = ("lookup", "layers", "hybrid", "auto")
COLD_TOKENS = 512
BATCH = 8
STRETCH = 24  # tokens over which a speed is taken, in the timeline
SEARCH_BAR = 0.05
LOOKUP_TOKENS = 10  # transformers' prompt_lookup_num_tokens, as its documentation has it
Measured = tuple[list[Figure], dict[str, Any]]


@dataclass(frozen=True)
class Drafting:
    """What is timed: each of ``drafters`` on every prompt of ``groups``, greedy, ``rounds`` times,
    in turns with plain decoding and transformers. ``whole``: answers to their end, within
    ``new_tokens``; else just as many tokens."""

    groups: Mapping[str, Sequence[PromptLike]]
    drafters: Sequence[str] = DRAFTERS
    new_tokens: int = 128
    whole: bool = False
    rounds: int = 1
    depth: Depth = Depth()  # noqa: RUF009  (frozen)

    def options(self, draft: str) -> Depth:
        return self.depth.model_copy(update={"draft": draft})

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=0, max_new_tokens=self.new_tokens, ignore_eos=not self.whole)


def bench_depth(engine: Engine, other: Any, drafting: Drafting, progress: Progress) -> Measured:
    """All figures, and what they are computed from. ``other``: the model in transformers."""
    cold, raw = cold_start(engine, drafting)
    timed = Timed(engine, other, drafting)
    with progress:
        for group, prompts in drafting.groups.items():
            for prompt in progress.track(prompts, description=group):
                timed.warm(prompt)
        for group, prompts in drafting.groups.items():
            for prompt in progress.track(prompts, description=f"{group}, warm"):
                timed.measure(group, prompt)
        batched = timed.batched() if "hybrid" in drafting.drafters else {}
    return [*timed.figures(batched), *cold], raw | {"runs": timed.runs, "batched": batched}


class Timed:
    """Seconds and stats of every arm on every prompt."""

    def __init__(self, engine: Engine, other: Any, drafting: Drafting) -> None:
        self.engine, self.other, self.drafting = engine, other, drafting
        self.runs: list[dict[str, Any]] = []

    def warm(self, prompt: PromptLike) -> None:
        """Once through every drafter, so that what it can know is known."""
        for draft in self.drafting.drafters:
            self._generate([prompt], draft)

    def measure(self, group: str, prompt: PromptLike) -> None:
        """One prompt, all arms in turns; the arms must say the same."""
        found: dict[str, Result] = {}

        def arm(draft: str) -> Callable[[], None]:
            def run() -> None:
                [found[draft]] = self._generate([prompt], draft)

            return run

        arms: dict[str, Callable[[], object]] = {
            draft: arm(draft) for draft in ("off", *self.drafting.drafters)
        }
        ids = torch.tensor([self.engine.chat.encode(prompt).ids])
        count = self.drafting.new_tokens
        if not self.drafting.whole:
            arms["transformers"] = lambda: generate(self.other, ids, count)
            arms["transformers-lookup"] = lambda: generate(
                self.other, ids, count, prompt_lookup_num_tokens=LOOKUP_TOKENS
            )
        seconds = interleaved(arms, self.drafting.rounds, warm_up=0)
        stats = {draft: result.stats.to_dict() for draft, result in found.items()}
        same = {draft: r.token_ids == found["off"].token_ids for draft, r in found.items()}
        steps = {d: r.stats.new_tokens - r.stats.accepted for d, r in found.items()}
        self.runs.append(
            {"group": group, "seconds": seconds, "stats": stats, "same": same, "steps": steps}
        )

    def batched(self) -> dict[str, list[float]]:
        """Seconds of plain decoding and of hybrid with ``BATCH`` rows, group by group."""
        found: dict[str, list[float]] = {"off": [], "hybrid": []}
        for prompts in self.drafting.groups.values():
            batch = list(prompts[:BATCH])
            arms = {d: lambda d=d, b=batch: self._generate(b, d) for d in found}
            for draft, seconds in interleaved(arms, self.drafting.rounds, warm_up=1).items():
                found[draft].append(min(seconds))
        return found

    def figures(self, batched: Mapping[str, Sequence[float]]) -> list[Figure]:
        figures = []
        for draft in self.drafting.drafters:
            how = f"{draft}, warm, batch 1"
            for group in self.drafting.groups:
                ratios = self._ratios("off", draft, group)
                figures.append(
                    speedup(f"speedup/{draft}/{group}", ratios, f"{group}: {how}, over plain")
                )
            name = f"speedup/{draft}/mean"
            figures.append(speedup(name, self._ratios("off", draft), f"{how}, over plain, mean"))
            for arm in ("transformers", "transformers-lookup"):
                if ratios := self._ratios(arm, draft):
                    name = f"vs_{arm.replace('-', '_')}/{draft}/mean"
                    figures.append(speedup(name, ratios, f"{how}, over {arm}, mean"))
            figures += self._drafts(draft)
        if batched:
            ratios = [a / b for a, b in zip(batched["off"], batched["hybrid"], strict=True)]
            what = f"hybrid, warm, batch {BATCH}, over plain"
            figures.append(speedup(f"speedup/hybrid/batch{BATCH}", ratios, what))
        return figures

    def _drafts(self, draft: str) -> list[Figure]:
        """What became of a drafter's tokens."""
        stats = [run["stats"][draft] for run in self.runs]
        steps = sum(run["steps"][draft] for run in self.runs)
        drafted, accepted = (sum(s[k] for s in stats) for k in ("drafted", "accepted"))
        length = 1 + accepted / steps
        return [
            Figure(
                f"accepted_length/{draft}/mean",
                length,
                "tokens",
                "higher",
                what=f"{draft}: tokens a pass of the full model",
            ),
            Figure(
                f"acceptance/{draft}/mean",
                accepted / max(drafted, 1),
                "share",
                "higher",
                what=f"{draft}: drafted tokens that were accepted",
            ),
        ]

    def _ratios(self, over: str, under: str, group: str | None = None) -> list[float]:
        return [
            float(np.median(run["seconds"][over]) / np.median(run["seconds"][under]))
            for run in self.runs
            if group in (None, run["group"]) and over in run["seconds"]
        ]

    def _generate(self, prompts: Sequence[PromptLike], draft: str) -> list[Result]:
        options = self.drafting.options(draft)
        return self.engine.generate(prompts, None, options, None, self.drafting.sampling)


def speedup(name: str, ratios: Sequence[float], what: str) -> Figure:
    """Geometric mean with its bootstrap interval."""
    logs = [float(np.log(ratio)) for ratio in ratios]
    low, high = (float(np.exp(end)) for end in paired_bootstrap(logs))
    return Figure(name, float(np.exp(mean(logs))), "x", "higher", None, what, low, high)


def cold_start(engine: Engine, drafting: Drafting) -> Measured:
    """An engine that knows nothing: ``auto`` on the first prompt, and the search with ``layers`` on
    it, for the timeline."""
    prompt = next(iter(drafting.groups.values()))[0]
    raw: dict[str, Any] = {}
    shares = {}
    known = engine.drafting
    try:
        for draft in ("auto", "layers"):
            engine.drafting = Known(engine.decoder)
            shares[draft], raw[f"cold_{draft}"] = cold_run(engine, prompt, drafting.options(draft))
    finally:
        engine.drafting = known
    what = f"cold start of auto, {COLD_TOKENS} tokens: search over all time"
    figure = Figure("search_share", shares["auto"], "share", "lower", SEARCH_BAR, what)
    return [figure], raw


def cold_run(engine: Engine, prompt: PromptLike, depth: Depth) -> tuple[float, dict[str, Any]]:
    """The search's share of the time, and what happened when."""
    sampling = Sampling(temperature=0, max_new_tokens=COLD_TOKENS, ignore_eos=True)
    stream = engine.stream(prompt, None, depth, None, sampling)
    events, seconds = [], []
    for event in stream:
        events.append(event)
        seconds.append(time.perf_counter())
    stats, search = stream.result().stats, engine.drafting.search(depth)
    return search.seconds / stats.seconds, {
        "search_seconds": search.seconds,
        "stats": stats.to_dict(),
        "timeline": timeline(events),
        "speeds": speeds(events, seconds),
    }


def timeline(events: Sequence[Any]) -> list[dict[str, Any]]:
    """What the layer set was, and from which new token on."""
    found, tokens = [], 0
    for event in events:
        tokens += isinstance(event, TokenEvent)
        if isinstance(event, LayersEvent):
            found.append(event.to_dict() | {"at": tokens})
    return found


def speeds(events: Sequence[Any], seconds: Sequence[float]) -> list[dict[str, float]]:
    """tokens/s over every ``STRETCH`` tokens or a little more."""
    found: list[dict[str, float]] = []
    tokens, before, since = 0, 0, seconds[0]
    for event, now in zip(events, seconds, strict=True):
        if isinstance(event, TokenEvent) and tokens - before >= STRETCH and now - since > 1e-4:
            rate = (tokens - before) / (now - since)
            found.append({"at": tokens, "tokens_per_s": rate})
            before, since = tokens, now
        tokens += isinstance(event, TokenEvent)
    return found
