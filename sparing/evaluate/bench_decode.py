"""`sparing bench decode`: plain decoding, verification, a long run under a budget."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from rich.progress import Progress

from sparing.api import Engine
from sparing.engine.events import TokenEvent
from sparing.evaluate.baselines.process import BaselineError
from sparing.evaluate.baselines.start import Baselines
from sparing.evaluate.baselines.transformers import generate
from sparing.evaluate.report import Figure
from sparing.evaluate.timing import READ_BYTES, interleaved, large_read, paired_ratio
from sparing.options import Depth, Memory, Sampling

PROMPTS = (
    "Explain how a steam engine turns heat into motion.",
    "Write a short story about a lighthouse keeper and a lost ship.",
    "List the steps to bake a loaf of sourdough bread.",
    "Why do the seasons change over the year?",
    "Describe how a computer adds two numbers.",
    "What should a beginner know about growing tomatoes?",
    "Tell me about the history of the printing press.",
    "How does a vaccine teach the immune system?",
)
NEW_TOKENS = 128
BATCH = 8
VERIFIED = 8
CACHED = (64, 4096)
LONG_TOKENS, LONG_BUDGET = 2048, 512
OFF = Depth(draft="off")
ORDER = (
    "speedup_vs_transformers",
    "bandwidth_share",
    "verify8_over_step_64",
    "verify8_over_step_4096",
    "last_over_first_quarter",
    "kv_bytes_share",
    "batch8_over_batch1",
    "vs_llama_cpp/64",
    "vs_llama_cpp/4096",
    "batch8_vs_llama_cpp",
    "prefill_vs_llama_cpp",
    "perplexity_vs_llama_cpp",
    "vs_openvino",
)  # these first, then what else there is
Measured = tuple[list[Figure], dict[str, Any]]


@dataclass
class DecodeBench:
    """What is measured, and how often.

    ``other``: the model in transformers, or None.
    ``ids``: of a text without repetitions, which fills caches.
    ``windows``: of ids, whose perplexity is taken.
    ``loading``: the options of ``load``, for other processes.
    ``left_out``: what a reader would look for and does not find, and why.
    """

    engine: Engine
    other: Any
    prompts: Sequence[str]
    rounds: int
    ids: list[int]
    windows: list[list[int]] = field(default_factory=list)
    loading: dict[str, Any] = field(default_factory=dict)
    baselines: Baselines = field(default_factory=Baselines)
    left_out: dict[str, str] = field(default_factory=dict)


Part = Callable[[DecodeBench], Measured]


def bench_decode(bench: DecodeBench, parts: Sequence[Part], progress: Progress) -> Measured:
    """The rows of all parts, each with the raw seconds that it is computed from."""
    figures: list[Figure] = []
    raw: dict[str, Any] = {}
    for part in progress.track(parts, description="bench decode"):
        rows, seconds = unbroken(part, bench)
        figures += rows
        raw |= seconds
    about = {"baselines": bench.baselines.described()}
    about["left_out"] = bench.left_out | bench.baselines.left_out
    figures.sort(key=lambda f: ORDER.index(f.name) if f.name in ORDER else len(ORDER))
    return figures, raw | about


def unbroken(part: Part, bench: DecodeBench) -> Measured:
    """A part's rows; where a baseline breaks down in it, once more without."""
    while True:
        try:
            return part(bench)
        except BaselineError as error:
            if error.name not in bench.baselines.engines:  # a second Sparing
                bench.left_out[part.__name__] = str(error)
                return [], {}
            bench.baselines.drop(error)


def plain(bench: DecodeBench) -> Measured:
    """Batch 1 against transformers.generate, against the machine's bandwidth, against batch 8."""
    engine, rounds, model = bench.engine, bench.rounds, bench.other
    single = bench.prompts[0]
    batch = [bench.prompts[i % len(bench.prompts)] for i in range(BATCH)]
    tokens = torch.tensor([prompt_ids(engine, single)])
    step_seconds: list[float] = []
    arms: dict[str, Callable[[], Any]] = {
        "ours": lambda: step_seconds.append(decode_step_seconds(engine, single)),
        "batch8": lambda: decode(engine, batch),
        "read": large_read(torch.get_num_threads()),
    }
    if model is not None:
        arms = {"transformers": lambda: generate(model, tokens, NEW_TOKENS)} | arms
    seconds = interleaved(arms, rounds)
    steps = step_seconds[-rounds:]
    raw = {
        "plain_seconds": seconds,
        "plain_step_seconds": steps,
        "read_bytes": READ_BYTES,
        "weight_bytes": engine.decoder.step_bytes,
        "new_tokens": NEW_TOKENS,
    }
    return list(plain_figures(engine.decoder.step_bytes, seconds, steps)), raw


def plain_figures(
    weight_bytes: int, seconds: dict[str, list[float]], steps: Sequence[float]
) -> Iterator[Figure]:
    if "transformers" in seconds:
        yield Figure(
            "speedup_vs_transformers",
            paired_ratio(seconds["transformers"], seconds["ours"]),
            "x",
            "higher",
            what=f"plain decode, {NEW_TOKENS} new tokens, batch 1, tokens/s over "
            "transformers.generate",
        )
    bandwidth = READ_BYTES / median(seconds["read"])
    yield Figure(
        "bandwidth_share",
        weight_bytes / median(steps) / bandwidth,
        "share",
        "higher",
        what="bytes of weights per second over a measured large read",
    )
    yield Figure(
        "batch8_over_batch1",
        BATCH * paired_ratio(seconds["ours"], seconds["batch8"]),
        "x",
        "higher",
        what="batch 8 over batch 1, tokens/s",
    )


def bounded(bench: DecodeBench) -> Measured:
    """Long runs under a budget: do they keep their speed, and what do they hold?"""
    engine, prompt = bench.engine, bench.prompts[0]
    room = engine.decoder.shape.context - len(prompt_ids(engine, prompt))
    sampling = Sampling(temperature=0, max_new_tokens=min(LONG_TOKENS, room), ignore_eos=True)
    runs: list[list[float]] = []
    for _ in range(bench.rounds):
        stream = engine.stream(
            engine.chat.question(prompt), Memory(budget=LONG_BUDGET), OFF, None, sampling
        )
        runs.append([time.perf_counter() for event in stream if isinstance(event, TokenEvent)])
    quarter = len(runs[0]) // 4
    ratios = [(t[quarter] - t[0]) / (t[-1] - t[-1 - quarter]) for t in runs]
    stats = stream.result().stats
    full = engine.request(engine.chat.question(prompt), sampling=sampling)
    full_bytes = float32_bytes(engine, full.slots)
    figures = [
        Figure(
            "last_over_first_quarter",
            median(ratios),
            "x",
            "higher",
            what=f"{stats.new_tokens:,} new tokens at budget {LONG_BUDGET}: tokens/s of the last "
            "quarter over the first",
        ),
        Figure(
            "kv_bytes_share",
            stats.kv_bytes_peak / full_bytes,
            "share",
            "lower",
            what="the same run's peak KV bytes over the full cache's at float32",
        ),
    ]
    raw = {
        "bounded_token_seconds": [t - runs[-1][0] for t in runs[-1]],
        "bounded_ratios": ratios,
        "bounded_stats": stats.to_dict(),
        "full_kv_bytes": full_bytes,
    }
    return figures, raw


def float32_bytes(engine: Engine, slots: int) -> int:
    """Bytes of the keys and values of ``slots`` slots."""
    shape = engine.decoder.shape
    return 4 * 2 * shape.layers * shape.kv_heads * shape.head_dim * slots


def prompt_ids(engine: Engine, prompt: str) -> list[int]:
    return engine.chat.encode(engine.chat.question(prompt)).ids


def decode(engine: Engine, prompts: Sequence[str]) -> None:
    """All prompts at once, plain and greedy."""
    sampling = Sampling(temperature=0, max_new_tokens=NEW_TOKENS, ignore_eos=True)
    engine.generate([engine.chat.question(prompt) for prompt in prompts], None, OFF, None, sampling)


def decode_step_seconds(engine: Engine, prompt: str) -> float:
    """Decode one prompt; the median seconds between its tokens."""
    sampling = Sampling(temperature=0, max_new_tokens=NEW_TOKENS, ignore_eos=True)
    stream = engine.stream(engine.chat.question(prompt), None, OFF, None, sampling)
    times = [time.perf_counter() for event in stream if isinstance(event, TokenEvent)]
    return median(after - before for before, after in pairwise(times))
