"""The cold start of `sparing bench depth`: what an engine that knows nothing finds, and when."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import cycle
from typing import Any

from sparing.api import Engine
from sparing.depth.state import DraftingState
from sparing.engine.events import LayersEvent, TokenEvent
from sparing.evaluate.report import Figure
from sparing.evaluate.timing import alternating
from sparing.model.chat import PromptLike
from sparing.options import Depth, Sampling

COLD_TOKENS = 512  # over which the speed and the search's share are taken
BEYOND = 384  # tokens, at least, that the timeline shows of acceleration
LONGEST = 4096  # tokens after which it ends in any case
STRETCH = 96  # tokens over which a speed is taken


@dataclass(frozen=True)
class Mark:
    """After a step: new tokens so far, and the seconds of decoding, the search's among them."""

    tokens: int
    seconds: float
    search_seconds: float


@dataclass
class ColdRun:
    """Requests one after the other: marks, and the layer sets with the tokens they came after."""

    engine: Engine
    depth: Depth
    sampling: Sampling
    drafting: DraftingState
    marks: list[Mark] = field(default_factory=lambda: [Mark(0, 0.0, 0.0)])
    timeline: list[dict[str, Any]] = field(default_factory=list)

    def answer(self, prompts: Sequence[PromptLike], to_acceleration: bool) -> "ColdRun":
        """The prompts in turn, over and over: ``COLD_TOKENS``, or until it has accelerated."""
        for prompt in cycle(prompts):
            self._answer(prompt)
            if self._accelerated if to_acceleration else self._tokens >= COLD_TOKENS:
                break
        return self

    @property
    def _tokens(self) -> int:
        return self.marks[-1].tokens

    @property
    def _accelerated(self) -> bool:
        last = self.timeline[-1]
        shown = last["phase"] == "acceleration" and self._tokens >= last["at"] + BEYOND
        return (shown and self._tokens >= COLD_TOKENS) or self._tokens >= LONGEST

    def _answer(self, prompt: PromptLike) -> None:
        """One request; a mark for each token of it."""
        drafting, depth = self.drafting, self.depth
        search = drafting.search(depth) if depth.draft != "off" else None
        before, begun = self.marks[-1].seconds, time.perf_counter()
        stream = self.engine.stream(prompt, None, depth, None, self.sampling, drafting=drafting)
        for event in stream:
            if isinstance(event, LayersEvent):
                self.timeline.append(event.to_dict() | {"at": self._tokens})
            elif isinstance(event, TokenEvent):
                seconds = before + time.perf_counter() - begun
                searched = search.seconds if search else 0.0
                self.marks.append(Mark(self._tokens + 1, seconds, searched))

    @property
    def early(self) -> Mark:
        """The first mark with ``COLD_TOKENS``, or the last one."""
        return next((m for m in self.marks if m.tokens >= COLD_TOKENS), self.marks[-1])

    @property
    def speeds(self) -> list[dict[str, float]]:
        """tokens/s over every ``STRETCH`` tokens or a few more: drafts come all at once."""
        found, since = [], self.marks[0]
        for mark in self.marks:
            if mark.tokens - since.tokens >= STRETCH:
                rate = (mark.tokens - since.tokens) / (mark.seconds - since.seconds)
                found.append({"at": mark.tokens, "tokens_per_s": rate})
                since = mark
        return found

    def to_dict(self) -> dict[str, Any]:
        return {
            "early": asdict(self.early),
            "total": asdict(self.marks[-1]),
            "timeline": self.timeline,
            "speeds": self.speeds,
        }


def cold_start(
    engine: Engine,
    groups: Sequence[Sequence[PromptLike]],
    drafters: Sequence[str],
    depth: Depth,
    sampling: Sampling,
) -> tuple[list[Figure], dict[str, Any]]:
    """Each of ``drafters`` from nothing, on prompts of all groups in turn; ``layers`` goes on until
    it accelerates, for the timeline. The search's share is that of ``auto``."""
    mixed = alternating(groups)
    runs: dict[str, ColdRun] = {}
    for draft in ("off", *drafters):
        options = depth.model_copy(update={"draft": draft})
        run = ColdRun(engine, options, sampling, DraftingState(engine.decoder))
        runs[draft] = run.answer(mixed, draft == "layers")
    raw = {f"cold_{draft}": run.to_dict() for draft, run in runs.items()}
    plain = runs.pop("off").early
    figures = [
        Figure(
            f"speedup_cold/{draft}",
            (run.early.tokens / run.early.seconds) / (plain.tokens / plain.seconds),
            "x",
            "higher",
            what=f"{draft}, cold start, {COLD_TOKENS} tokens, batch 1, over plain",
        )
        for draft, run in runs.items()
    ]
    if "auto" in runs:
        early = runs["auto"].early
        what = f"auto, cold start, {COLD_TOKENS} tokens: search over all time"
        share = early.search_seconds / early.seconds
        figures.append(Figure("search_share", share, "share", "lower", what))
    return figures, raw
