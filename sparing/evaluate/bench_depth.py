"""`sparing bench depth`: what drafting gives, drafter by drafter, on groups of prompts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import mean
from typing import Any

import numpy as np
import torch
from rich.progress import Progress

from sparing.api import Engine
from sparing.depth.find import DraftingState
from sparing.engine.events import TokenEvent
from sparing.engine.result import Result
from sparing.evaluate.bench_decode import generate
from sparing.evaluate.bench_depth_cold import cold_start
from sparing.evaluate.report import Figure
from sparing.evaluate.statistics import geometric_mean
from sparing.evaluate.timing import interleaved
from sparing.model.chat import PromptLike
from sparing.options import Depth, Sampling
from sparing.tasks.families import POCKET_TASKS

DRAFTERS = ("lookup", "layers", "hybrid", "auto")
BATCH = 8
BARS: dict[tuple[str, str | None], dict[str, float]] = {  # by model and tasks
    ("pocket", POCKET_TASKS): {
        "speedup/layers/mean": 1.5,
        "speedup/hybrid/mean": 1.8,
        f"speedup/hybrid/batch{BATCH}": 1.2,
    },
    ("smollm2", None): {  # on prompts: Spec-Bench's
        "speedup/auto/mean": 1.25,
        "speedup/auto/worst": 0.97,
        "vs_transformers/auto/mean": 2.5,
        "vs_transformers_lookup/auto/mean": 2.5,
    },
}
WARMING = 16  # tokens by transformers, before anything is timed
SPENT = {"search": "search", "draft": "drafting", "verify": "verifying and all else"}
LOOKUP_TOKENS = 10  # transformers' prompt_lookup_num_tokens, as its documentation has it
Measured = tuple[list[Figure], dict[str, Any]]


@dataclass(frozen=True)
class Drafting:
    """What is timed: each of ``drafters`` on every prompt of ``groups``, greedy, ``rounds`` times,
    in turns with plain decoding and transformers, which says as many tokens as plain decoding did,
    after all of ``warm_up``; where that is empty, after the prompts themselves, whose answers are
    then forgotten. ``whole``: answers to their end, within
    ``new_tokens``; else just as many tokens. ``bars``: of figures, by name."""

    groups: Mapping[str, Sequence[PromptLike]]
    warm_up: Sequence[PromptLike] = ()
    drafters: Sequence[str] = DRAFTERS
    new_tokens: int = 128
    whole: bool = False
    rounds: int = 1
    depth: Depth = Depth()  # noqa: RUF009  (frozen)
    bars: Mapping[str, float] = field(default_factory=dict)

    def options(self, draft: str) -> Depth:
        return self.depth.model_copy(update={"draft": draft})

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=0, max_new_tokens=self.new_tokens, ignore_eos=not self.whole)


def bench_depth(engine: Engine, other: Any, drafting: Drafting, progress: Progress) -> Measured:
    """All figures, and what they are computed from. ``other``: the model in transformers."""
    groups = list(drafting.groups.values())
    cold, raw = cold_start(engine, groups, drafting.drafters, drafting.depth, drafting.sampling)
    timed = Timed(engine, other, drafting)
    with progress:
        timed.warm_up(progress)
        batched = timed.batched() if "hybrid" in drafting.drafters else {}
        for group, prompts in drafting.groups.items():
            for prompt in progress.track(prompts, description=group):
                timed.measure(group, prompt)
    figures = [
        replace(figure, bar=drafting.bars.get(figure.name, figure.bar))
        for figure in [*timed.figures(batched), *cold]
    ]
    return figures, raw | {"runs": timed.runs, "batched": batched}


class Timed:
    """Seconds and stats of every arm on every prompt.

    Each drafter knows what it has found out itself, and in each round as much as in the first: one
    that has heard an answer would say it by heart.
    """

    def __init__(self, engine: Engine, other: Any, drafting: Drafting) -> None:
        self.engine, self.other, self.drafting = engine, other, drafting
        self.known = {
            draft: DraftingState(engine.decoder, engine.drafting.sets)
            for draft in ("off", *drafting.drafters)
        }
        self.runs: list[dict[str, Any]] = []

    def warm_up(self, progress: Progress) -> None:
        """Once through every arm, so that what a drafter can know is known."""
        own = [prompt for prompts in self.drafting.groups.values() for prompt in prompts]
        before = {draft: known.ngrams.copy() for draft, known in self.known.items()}
        self._theirs(own[0], WARMING)
        prompts = self.drafting.warm_up or own
        for prompt in progress.track(prompts, description="warming up"):
            for draft in self.known:
                self._generate([prompt], draft)
        if not self.drafting.warm_up:
            for draft, known in self.known.items():
                known.ngrams = before[draft]

    def _theirs(self, prompt: PromptLike, count: int, **more: Any) -> None:
        """So many tokens by transformers."""
        ids = torch.tensor([self.engine.chat.encode(prompt).ids])
        generate(self.other, ids, count, **more)

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

        def theirs(**more: Any) -> None:
            self._theirs(prompt, len(found["off"].token_ids), **more)

        arms["transformers"] = theirs
        arms["transformers-lookup"] = partial(theirs, prompt_lookup_num_tokens=LOOKUP_TOKENS)
        seconds = self._in_turns(arms, self.drafting.rounds)
        stats = {draft: result.stats.to_dict() for draft, result in found.items()}
        same = {draft: r.token_ids == found["off"].token_ids for draft, r in found.items()}
        steps = {draft: passes(result) for draft, result in found.items()}
        self.runs.append(
            {"group": group, "seconds": seconds, "stats": stats, "same": same, "steps": steps}
        )

    @property
    def rows(self) -> int:
        """Of a batch: ``BATCH``, where every group has as many."""
        return min(BATCH, *map(len, self.drafting.groups.values()))

    def batched(self) -> dict[str, list[float]]:
        """Seconds of plain decoding and of hybrid with ``rows`` at a time, group by group."""
        found: dict[str, list[float]] = {"off": [], "hybrid": []}
        before = {draft: known.ngrams.copy() for draft, known in self.known.items()}
        for prompts in self.drafting.groups.values():
            batch = list(prompts[: self.rows])
            arms = {d: lambda d=d, b=batch: self._generate(b, d) for d in found}
            for draft, (_, *seconds) in self._in_turns(arms, 1 + self.drafting.rounds).items():
                found[draft].append(min(seconds))
        for draft, known in self.known.items():
            known.ngrams = before[draft]
        return found

    def _in_turns(
        self, arms: Mapping[str, Callable[[], object]], rounds: int
    ) -> dict[str, list[float]]:
        """Seconds of each arm in each round, which begins with what had been heard before."""
        before = {draft: known.ngrams for draft, known in self.known.items()}
        seconds: dict[str, list[float]] = {name: [] for name in arms}
        for _ in range(rounds):
            for draft, known in self.known.items():
                known.ngrams = before[draft].copy()
            for name, (taken,) in interleaved(arms, 1, warm_up=0).items():
                seconds[name].append(taken)
        return seconds

    def figures(self, batched: Mapping[str, Sequence[float]]) -> list[Figure]:
        figures = [figure for draft in self.drafting.drafters for figure in self._of(draft)]
        if batched:
            ratios = [a / b for a, b in zip(batched["off"], batched["hybrid"], strict=True)]
            what = f"hybrid, warm, batch {self.rows}, over plain"
            figures.append(speedup(f"speedup/hybrid/batch{self.rows}", ratios, what))
        return figures

    def _of(self, draft: str) -> list[Figure]:
        """One drafter's: speed, what became of its tokens, where the seconds went."""
        figures = self._speeds(draft, "off", "speedup", "plain")
        worst = min(figures[:-1], key=lambda figure: figure.value)
        what = f"worst group, {worst.what}"
        figures.append(replace(worst, name=f"speedup/{draft}/worst", what=what))
        figures += self._speeds(draft, "transformers", "vs_transformers", "transformers.generate")
        figures += self._speeds(
            draft, "transformers-lookup", "vs_transformers_lookup", "transformers' prompt lookup"
        )
        same = [run["same"][draft] for run in self.runs]
        what = f"{draft}: answers that are those of plain decoding, token for token"
        figures.append(Figure(f"same/{draft}", mean(same), "share", "higher", what=what))
        for group in (*self.drafting.groups, None):
            figures += [self._length(draft, group), self._acceptance(draft, group)]
            figures += self._shares(draft, group)
        return figures

    def _speeds(self, draft: str, arm: str, name: str, over: str) -> list[Figure]:
        """Over another arm, group by group; last of all groups."""
        how = f"{draft}, warm, batch 1, over {over}"
        figures = [
            speedup(f"{name}/{draft}/{group}", self._ratios(arm, draft, group), f"{group}: {how}")
            for group in self.drafting.groups
        ]
        mean_of = speedup(f"{name}/{draft}/mean", self._ratios(arm, draft), f"{how}, mean")
        return [*figures, mean_of]

    def _length(self, draft: str, group: str | None) -> Figure:
        tokens = self._total(draft, "new_tokens", group)
        return Figure(
            f"accepted_length/{draft}/{group or 'mean'}",
            tokens / sum(run["steps"][draft] for run in self._runs(group)),
            "tokens",
            "higher",
            what=f"{group or 'mean'}: {draft}, tokens a pass of the full model",
        )

    def _acceptance(self, draft: str, group: str | None) -> Figure:
        drafted, accepted = (self._total(draft, key, group) for key in ("drafted", "accepted"))
        return Figure(
            f"acceptance/{draft}/{group or 'mean'}",
            accepted / max(drafted, 1),
            "share",
            "higher",
            what=f"{group or 'mean'}: {draft}, drafted tokens that were accepted",
        )

    def _shares(self, draft: str, group: str | None) -> list[Figure]:
        """Of all seconds: the search's, the drafts', and what is left, verification above all."""
        seconds = {key: self._total(draft, f"{key}_seconds", group) for key in ("search", "draft")}
        total = self._total(draft, "seconds", group)
        seconds["verify"] = total - sum(seconds.values())
        return [
            Figure(
                f"time_share/{key}/{draft}" + (f"/{group}" if group else ""),
                value / total,
                "share",
                "lower",
                what=f"{group or 'mean'}: {draft}, warm, share of the time, {SPENT[key]}",
            )
            for key, value in seconds.items()
        ]

    def _total(self, draft: str, key: str, group: str | None) -> float:
        return sum(run["stats"][draft][key] for run in self._runs(group))

    def _runs(self, group: str | None) -> list[dict[str, Any]]:
        """Of one group; None: of all."""
        return [run for run in self.runs if group in (None, run["group"])]

    def _ratios(self, over: str, under: str, group: str | None = None) -> list[float]:
        return [
            float(np.median(run["seconds"][over]) / np.median(run["seconds"][under]))
            for run in self._runs(group)
        ]

    def _generate(self, prompts: Sequence[PromptLike], draft: str) -> list[Result]:
        options, shared = self.drafting.options(draft), self.engine.drafting
        self.engine.drafting = self.known[draft]
        try:
            return self.engine.generate(prompts, None, options, None, self.drafting.sampling)
        finally:
            self.engine.drafting = shared


def passes(result: Result) -> int:
    """Of the full model: each says a token of its own behind what it accepts, but for one that
    accepts the end."""
    last = [event for event in result.events if isinstance(event, TokenEvent)][-1]
    return result.stats.new_tokens - result.stats.accepted + (last.origin == "draft")


def speedup(name: str, ratios: Sequence[float], what: str) -> Figure:
    """Geometric mean with its bootstrap interval."""
    found, low, high = geometric_mean(ratios)
    return Figure(name, found, "x", "higher", None, what, low, high)
