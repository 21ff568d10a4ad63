"""`sparing bench hub`: a model of transformers in our loop, against its own ``generate``."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch

from sparing.api import Engine
from sparing.engine.events import TokenEvent
from sparing.evaluate.bench_decode import OFF
from sparing.evaluate.bench_decode_pass import gaps
from sparing.evaluate.own_script import peak_bytes, reset_peak
from sparing.evaluate.report import Figure
from sparing.evaluate.timing import in_turns
from sparing.hf import generate
from sparing.options import Memory, Sampling

NEW_TOKENS = 48
BUDGET, BUDGETED = 256, 2000  # slots, and tokens decoded under them
WARM = 300  # tokens after which the memory is taken first: all slots were used
WAYS = {"engine": "its modules in our loop", "custom_generate": "generate with custom_generate"}


class Clock:
    """A streamer of transformers that notes when each token came."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, _: Any) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Nothing more comes."""


def bench_hub(
    engine: Engine, other: Any, ids: Sequence[int], cached: Sequence[int], rounds: int
) -> tuple[list[Figure], dict[str, Any]]:
    """Seconds between tokens behind prompts of ``cached`` tokens, and what a budget holds.

    ``engine``: over the HubDecoder
    ``other``: the same model in transformers, for ``generate`` and ``custom_generate``
    """
    figures: list[Figure] = []
    raw: dict[str, Any] = {"new_tokens": NEW_TOKENS}
    for count in cached:
        prompt = list(ids[:count])
        arms: dict[str, Callable[[], list[float]]] = {
            "generate": partial(by_generate, other, prompt),
            "custom_generate": partial(by_generate, other, prompt, custom_generate=generate),
            "engine": partial(by_engine, engine, prompt),
        }
        seconds = in_turns(arms, rounds)
        raw[f"step_seconds/{count}"] = seconds
        for name, told in (("engine", "hub"), ("custom_generate", "custom_generate")):
            ratios = [
                median(theirs) / median(ours)
                for theirs, ours in zip(seconds["generate"], seconds[name], strict=True)
            ]
            what = f"{WAYS[name]}: tokens/s over generate of transformers, {count} cached"
            figures.append(
                Figure(f"{told}_vs_generate/{count}", median(ratios), "x", "higher", what)
            )
    growth, held = budgeted(engine, list(ids[:64]))
    share = growth / held
    what = f"growth of the process's peak from token {WARM} to {BUDGETED:,} over the cache's bytes"
    figures.append(Figure("budget_growth_share", share, "share", "lower", what))
    raw |= {"budget_growth_bytes": growth, "budget_kv_bytes": held}
    return figures, raw


def by_generate(model: Any, prompt: list[int], **more: Any) -> list[float]:
    """Seconds between the tokens of transformers' ``generate``."""
    clock, tokens = Clock(), torch.tensor([prompt])
    model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=None,
        streamer=clock,
        **more,
    )
    return gaps(clock.times[1:])  # the first is the prompt's


def by_engine(engine: Engine, prompt: list[int]) -> list[float]:
    """Seconds between the tokens of our stream."""
    sampling = Sampling(temperature=0, max_new_tokens=NEW_TOKENS, ignore_eos=True)
    stream = engine.stream(prompt, None, OFF, None, sampling)
    return gaps([time.perf_counter() for event in stream if isinstance(event, TokenEvent)])


def budgeted(engine: Engine, prompt: list[int]) -> tuple[int, int]:
    """Bytes by which the process's peak grows under a budget, and those of its cache."""
    sampling = Sampling(temperature=0, max_new_tokens=BUDGETED, ignore_eos=True)
    stream = engine.stream(prompt, Memory(budget=BUDGET, policy="window"), OFF, None, sampling)
    warm = 0
    for said, _ in enumerate(event for event in stream if isinstance(event, TokenEvent)):
        if said == WARM:
            reset_peak()  # prompts before had another
            warm = peak_bytes()
    return peak_bytes() - warm, stream.result().stats.kv_bytes_peak
