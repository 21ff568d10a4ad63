"""`sparing bench decode`: plain decoding against transformers; what a budget costs and saves."""

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from rich.progress import Progress

from sparing.api import Engine
from sparing.engine.cache import SlotCache
from sparing.engine.events import TokenEvent
from sparing.evaluate.report import Figure
from sparing.evaluate.timing import READ_BYTES, interleaved, large_read, paired_ratio
from sparing.model.inputs import RowInput
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


def bench_decode(
    engine: Engine, transformers_model: Any, prompts: Sequence[str], rounds: int, progress: Progress
) -> tuple[list[Figure], dict[str, Any]]:
    """All rows of the table, each with the raw seconds that it is computed from."""
    figures: list[Figure] = []
    raw: dict[str, Any] = {}
    parts: list[Callable[[], tuple[list[Figure], dict[str, Any]]]] = [
        lambda: plain(engine, transformers_model, prompts, rounds),
        lambda: verification(engine, 4 * rounds),
        lambda: bounded(engine, prompts[0]),
    ]
    for part in progress.track(parts, description="bench decode"):
        rows, seconds = part()
        figures += rows
        raw |= seconds
    order = (
        "speedup_vs_transformers",
        "bandwidth_share",
        "verify8_over_step_64",
        "verify8_over_step_4096",
        "last_over_first_quarter",
        "kv_bytes_share",
        "batch8_over_batch1",
    )
    return sorted(figures, key=lambda figure: order.index(figure.name)), raw


def plain(
    engine: Engine, model: Any, prompts: Sequence[str], rounds: int
) -> tuple[list[Figure], dict[str, Any]]:
    """Batch 1 against transformers.generate, against the machine's bandwidth, against batch 8."""
    read = large_read()
    single = prompts[0]
    batch = [prompts[i % len(prompts)] for i in range(BATCH)]
    tokens = torch.tensor([prompt_ids(engine, single)])
    step_seconds: list[float] = []
    arms = {
        "transformers": lambda: generate(model, tokens, NEW_TOKENS),
        "ours": lambda: step_seconds.append(decode_step_seconds(engine, single)),
        "batch8": lambda: decode(engine, batch),
        "read": read,
    }
    seconds = interleaved(arms, rounds)
    steps = step_seconds[-rounds:]
    shares = [
        engine.decoder.step_bytes / step / (READ_BYTES / r)
        for step, r in zip(steps, seconds["read"], strict=True)
    ]
    figures = [
        Figure(
            "speedup_vs_transformers",
            paired_ratio(seconds["transformers"], seconds["ours"]),
            "x",
            "higher",
            2.0,
            f"plain decode, {NEW_TOKENS} new tokens, batch 1, tokens/s over transformers.generate",
        ),
        Figure(
            "bandwidth_share",
            median(shares),
            "share",
            "higher",
            0.85,
            "bytes of weights per second over a measured large read",
        ),
        Figure(
            "batch8_over_batch1",
            BATCH * paired_ratio(seconds["ours"], seconds["batch8"]),
            "x",
            "higher",
            4.0,
            "batch 8 over batch 1, tokens/s",
        ),
    ]
    raw = {
        "plain_seconds": seconds,
        "plain_step_seconds": steps,
        "read_bytes": READ_BYTES,
        "weight_bytes": engine.decoder.step_bytes,
        "new_tokens": NEW_TOKENS,
    }
    return figures, raw


def verification(engine: Engine, rounds: int) -> tuple[list[Figure], dict[str, Any]]:
    """One pass over 8 tokens against one over 1, behind a cache of a given length."""
    figures, raw = [], {}
    for cached, bar in zip(CACHED, (1.6, 1.9), strict=True):
        cache = filled_cache(engine, cached, VERIFIED)
        arms = {
            f"{count} tokens": pass_over(engine, cache, cached, count) for count in (1, VERIFIED)
        }
        seconds = interleaved(arms, rounds, warm_up=3)
        ratio = paired_ratio(seconds[f"{VERIFIED} tokens"], seconds["1 tokens"])
        name = f"verify{VERIFIED}_over_step_{cached}"
        what = f"{VERIFIED}-token verify over 1-token step at {cached:,} cached"
        figures.append(Figure(name, ratio, "x", "lower", bar, what))
        raw[name] = seconds
    return figures, raw


def bounded(engine: Engine, prompt: str) -> tuple[list[Figure], dict[str, Any]]:
    """A long run under a budget: does it keep its speed, and what does it hold?"""
    room = engine.decoder.shape.context - len(prompt_ids(engine, prompt))
    sampling = Sampling(temperature=0, max_new_tokens=min(LONG_TOKENS, room), ignore_eos=True)
    stream = engine.stream(
        engine.chat.question(prompt), Memory(budget=LONG_BUDGET), OFF, None, sampling
    )
    times = [time.perf_counter() for event in stream if isinstance(event, TokenEvent)]
    quarter = len(times) // 4
    first, last = times[quarter] - times[0], times[-1] - times[-1 - quarter]
    stats = stream.result().stats
    full = engine.request(engine.chat.question(prompt), None, sampling)
    full_cache = engine.loop([full], OFF).cache
    full_cache.reserve(full.slots)
    figures = [
        Figure(
            "last_over_first_quarter",
            first / last,
            "x",
            "higher",
            0.95,
            f"{stats.new_tokens:,} new tokens at budget {LONG_BUDGET}: tokens/s of the last "
            "quarter over the first",
        ),
        Figure(
            "kv_bytes_share",
            stats.kv_bytes_peak / full_cache.nbytes,
            "share",
            "lower",
            0.30,
            "the same run's peak KV bytes over the full cache's",
        ),
    ]
    raw = {
        "bounded_token_seconds": [t - times[0] for t in times],
        "bounded_stats": stats.to_dict(),
        "full_kv_bytes": full_cache.nbytes,
    }
    return figures, raw


def prompt_ids(engine: Engine, prompt: str) -> list[int]:
    return engine.chat.encode(engine.chat.question(prompt)).ids


@torch.inference_mode()
def generate(model: Any, prompt: torch.Tensor, count: int, **more: Any) -> Any:
    """What transformers generates with everything kept, its cache with it: greedily and to the last
    of ``count`` tokens, unless ``more``, of its own options, says otherwise."""
    return model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=count,
        return_dict_in_generate=True,
        **{"do_sample": False, "min_new_tokens": count} | more,
    )


def cache_bytes(generated: Any) -> int:
    """Of transformers' keys and values at the end, from their storages."""
    layers = generated.past_key_values.layers
    return sum(t.untyped_storage().nbytes() for layer in layers for t in (layer.keys, layer.values))


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


def filled_cache(engine: Engine, cached: int, room: int) -> SlotCache:
    """A cache of one row with noise in its slots; the time of a pass does not depend on values."""
    shape = engine.decoder.shape
    cache = SlotCache(
        shape.layers,
        1,
        shape.kv_heads,
        shape.head_dim,
        cached + room,
        dtype=engine.decoder.dtype,
        device=engine.decoder.device,
    )
    for tensor in cache.kv:
        tensor.normal_(generator=torch.Generator(tensor.device).manual_seed(0))
    return cache


def pass_over(engine: Engine, cache: SlotCache, cached: int, count: int) -> Callable[[], Any]:
    """One pass over ``count`` new tokens, all of them scored."""
    new = RowInput(
        row=0,
        cached=cached,
        ids=list(range(1, count + 1)),
        positions=list(range(cached, cached + count)),
        scored=count,
    )
    return lambda: engine.decoder([new], cache)
