"""The clock of `sparing bench memory`: evictions and predictor are inside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from sparing.api import Engine
from sparing.evaluate.baselines.transformers import cache_bytes, generate
from sparing.evaluate.own import filled_cache, pass_over
from sparing.evaluate.report import Figure
from sparing.evaluate.timing import interleaved, paired_ratio
from sparing.options import Depth, Memory, Sampling

STEPS, CACHED = 200, 512  # of the predictor against a step
WARM_UP_TOKENS = 16
BUDGET, NEW_TOKENS = 768, 4096
OFF = Depth(draft="off")
Measured = tuple[list[Figure], dict[str, Any]]


@dataclass(frozen=True)
class Clock:
    """What is timed: as many ``new_tokens`` as the context holds after each question, under
    ``budget`` (as in ``Memory``, as are ``local`` and ``selection``) and with everything kept.

    Raises OptionError.
    """

    questions: Sequence[str]
    budget: int | float = BUDGET
    new_tokens: int = NEW_TOKENS
    rounds: int = 2
    local: int | float | None = None
    selection: int | float | None = None

    def __post_init__(self) -> None:
        _ = self.memory

    @property
    def memory(self) -> Memory:
        """By the model's own policy."""
        return Memory(budget=self.budget, local=self.local, selection=self.selection)


def speed_figures(engine: Engine, other: Any, clock: Clock) -> Measured:
    """All of them, and the raw seconds. ``other``: the model in transformers."""
    figures, raw = against_transformers(engine, other, clock)
    share, share_raw = predictor_share(engine)
    return [*share, *figures], raw | share_raw


def predictor_share(engine: Engine) -> Measured:
    """The predictor on one token against the pass that brought its hidden state."""
    predictor = engine.predictor
    if predictor is None:
        return [], {}
    cached = min(CACHED, engine.decoder.shape.context - 2)
    cache = filled_cache(engine, cached, 1)
    step = pass_over(engine, cache, cached, [1])
    hidden = step().hidden
    arms = {"predictor": lambda: predictor(hidden), "step": step}
    seconds = interleaved(arms, STEPS, warm_up=5)
    figure = Figure(
        "predictor_share_of_step",
        median(seconds["predictor"]) / median(seconds["step"]),
        "share",
        "lower",
        f"the predictor's seconds on a token over a decode step's, {cached} cached",
    )
    return [figure], {"predictor_seconds": seconds}


def against_transformers(engine: Engine, other: Any, clock: Clock) -> Measured:
    """Every question, the same number of new tokens, batch 1, greedy, drafting off: ours under a
    budget, theirs with all kept.

    No figure where a row of ours could not go on under its budget.
    """
    asked = [engine.chat.question(question) for question in clock.questions]
    prompts = [torch.tensor([engine.chat.encode(a).ids]) for a in asked]
    room = engine.decoder.shape.context - max(prompt.shape[1] for prompt in prompts)
    count = min(clock.new_tokens, room)
    last: dict[str, list[Any]] = {}  # results of ours, bytes of their caches

    def ours(count: int = count) -> None:
        sampling = Sampling(temperature=0, max_new_tokens=count, ignore_eos=True)
        last["ours"] = [engine.generate([a], clock.memory, OFF, None, sampling)[0] for a in asked]

    def theirs(count: int = count) -> None:
        last["theirs"] = [cache_bytes(generate(other, p, count)) for p in prompts]

    for warm_up in (ours, theirs):
        warm_up(min(WARM_UP_TOKENS, count))
    seconds = interleaved({"ours": ours, "theirs": theirs}, clock.rounds, warm_up=0)
    stats = [result.stats.to_dict() for result in last["ours"]]
    raw = {"speed_seconds": seconds, "speed_stats": stats, "speed_kv_bytes": last["theirs"]}
    if any(of_row["new_tokens"] < count for of_row in stats):
        return [], raw
    kv = sum(of_row["kv_bytes_peak"] for of_row in stats) / sum(last["theirs"])
    time = paired_ratio(seconds["ours"], seconds["theirs"])
    how = (
        f"{count:,} new tokens at budget {clock.budget} ({stats[0]['policy']}), drafting off, over "
        "transformers.generate"
    )
    return [
        Figure("time_vs_transformers", time, "x", "lower", f"seconds, {how}"),
        Figure("kv_bytes_vs_transformers", kv, "x", "lower", f"KV bytes, {how}"),
    ], raw
