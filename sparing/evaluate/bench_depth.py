"""`sparing bench depth`: what drafting gives, drafter by drafter, on groups of prompts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from rich.progress import Progress

from sparing.api import Engine
from sparing.depth.state import DraftingState
from sparing.engine.events import TokenEvent
from sparing.engine.result import Result
from sparing.evaluate.baselines.transformers import LOOKUP_TOKENS, generate
from sparing.evaluate.bench_depth_cold import cold_start
from sparing.evaluate.bench_depth_figures import depth_figures
from sparing.evaluate.report import Figure
from sparing.evaluate.timing import interleaved
from sparing.model.chat import PromptLike
from sparing.options import Depth, Sampling

DRAFTERS = ("lookup", "layers", "hybrid", "auto")
BATCH = 8
WARMING = 16  # tokens by transformers, before anything is timed
Measured = tuple[list[Figure], dict[str, Any]]


@dataclass(frozen=True)
class Drafting:
    """What is timed: every prompt, greedy, in turns with plain decoding and with transformers.

    Transformers generates as many tokens as plain decoding did.

    ``warm_up``: prompts before the first measured one; by default the prompts themselves, whose
    answers are then forgotten.
    ``whole``: answers go to their end within ``new_tokens``; else all have ``new_tokens``.
    """

    groups: Mapping[str, Sequence[PromptLike]]
    warm_up: Sequence[PromptLike] = ()
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
    groups = list(drafting.groups.values())
    cold, raw = cold_start(engine, groups, drafting.drafters, drafting.depth, drafting.sampling)
    timed = Timed(engine, other, drafting)
    with progress:
        timed.warm_up(progress)
        batched = timed.batched() if "hybrid" in drafting.drafters else {}
        for group, prompts in drafting.groups.items():
            for prompt in progress.track(prompts, description=group):
                timed.measure(group, prompt)
    figures = depth_figures(timed.runs, drafting.drafters, batched, timed.rows)
    return [*figures, *cold], raw | {"runs": timed.runs, "batched": batched}


class Timed:
    """Seconds and stats of every arm on every prompt.

    Each drafter has state of its own. Its n-grams are set back before each round: a measured answer
    would be replayed in the next one.
    """

    def __init__(self, engine: Engine, other: Any, drafting: Drafting) -> None:
        self.engine, self.other, self.drafting = engine, other, drafting
        self.known = {
            draft: DraftingState(engine.decoder, engine.drafting.sets)
            for draft in ("off", *drafting.drafters)
        }
        self.runs: list[dict[str, Any]] = []

    def warm_up(self, progress: Progress) -> None:
        """Every arm once, so that drafters have searched and timed."""
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
        """``count`` tokens by transformers."""
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
        """Seconds of each arm in each round; n-grams are set back before each."""
        before = {draft: known.ngrams for draft, known in self.known.items()}
        seconds: dict[str, list[float]] = {name: [] for name in arms}
        for _ in range(rounds):
            for draft, known in self.known.items():
                known.ngrams = before[draft].copy()
            for name, (taken,) in interleaved(arms, 1, warm_up=0).items():
                seconds[name].append(taken)
        return seconds

    def _generate(self, prompts: Sequence[PromptLike], draft: str) -> list[Result]:
        options, sampling = self.drafting.options(draft), self.drafting.sampling
        return self.engine.generate(
            prompts, None, options, None, sampling, drafting=self.known[draft]
        )


def passes(result: Result) -> int:
    """Of the full model: each says a token of its own behind what it accepts, but for one that
    accepts the end."""
    last = [event for event in result.events if isinstance(event, TokenEvent)][-1]
    return result.stats.new_tokens - result.stats.accepted + (last.origin == "draft")
