"""`sparing bench decode`: steps, passes, batches and prompts, beside llama.cpp and OpenVINO."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from sparing.evaluate.bench_decode import BATCH, CACHED, VERIFIED, DecodeBench, Measured
from sparing.evaluate.bench_decode_text import rows_of
from sparing.evaluate.own import Own
from sparing.evaluate.report import Figure
from sparing.evaluate.timing import in_turns, middle, ratio

STEPS, PASSES = 16, 4  # a turn; one more is not counted
PROMPT = 512
Arms = dict[str, Callable[[], list[float]]]


def steps_and_passes(bench: DecodeBench) -> Measured:
    """Behind a cache of each length, as far as the context holds it."""
    figures, raw = [], {}
    for cached in CACHED:
        rows, seconds = behind(bench, cached)
        figures += rows
        raw[f"behind_{cached}"] = seconds
    return figures, raw


def behind(bench: DecodeBench, wanted: int) -> Measured:
    """A pass over 8 tokens against one over 1, and plain steps, behind one cache."""
    room = (STEPS + 1) * (bench.rounds + 1) + VERIFIED + 1
    context = bench.engine.decoder.shape.context
    if context < wanted:
        bench.left_out[f"{wanted:,} cached"] = f"the context is of {context:,} tokens"
        return [], {}
    cached = min(wanted, context - room - 1)
    ids = bench.ids[:cached]
    own, arms = Own(bench.engine), Arms()
    own.fill([ids], room)
    arms |= counted(ids, own.passes, own.steps, "ours")
    if llama := bench.baselines.llama_cpp:
        name = f"{wanted} cached"
        llama.open(name, [ids], cached + room)
        arms |= counted(
            ids,
            lambda tokens, count: llama.passes(name, tokens, count),
            lambda count: llama.steps(name, count),
            "llama.cpp",
        )
    if (openvino := bench.baselines.openvino) and wanted == CACHED[0]:
        arms["OpenVINO step"] = lambda: gaps(openvino.generate(ids, STEPS + 2))[1:]
    seconds = in_turns(arms, bench.rounds)
    if llama:
        llama.drop(name)
    return behind_figures(seconds, wanted, cached), {"cached": cached, "seconds": seconds}


def counted(
    ids: Sequence[int],
    passes: Callable[[Sequence[int], int], list[float]],
    steps: Callable[[int], list[float]],
    who: str,
) -> Arms:
    """An engine's arms; the first of each turn is not counted."""
    return {
        f"{who} pass of 1": lambda: passes(ids[:1], PASSES + 1)[1:],
        f"{who} pass of {VERIFIED}": lambda: passes(ids[:VERIFIED], PASSES + 1)[1:],
        f"{who} step": lambda: steps(STEPS + 1)[1:],
    }


def behind_figures(seconds: dict[str, list[list[float]]], wanted: int, cached: int) -> list[Figure]:
    """What the arms at hand give."""
    at = f"at {cached:,} cached"
    figures = [
        Figure(f"step_ms_{wanted}", 1000 * middle(seconds["ours step"]), "ms", "lower",
               what=f"plain decoding {at}, ms a token"),
    ]  # fmt: skip
    for who, suffix in (("ours", ""), ("llama.cpp", "/llama.cpp")):
        if f"{who} step" in seconds:
            figures.append(
                Figure(
                    f"verify{VERIFIED}_over_step_{wanted}{suffix}",
                    ratio(seconds[f"{who} pass of {VERIFIED}"], seconds[f"{who} pass of 1"]),
                    "x",
                    "lower",
                    what=f"{who}: a pass of {VERIFIED} tokens over one of 1 {at}",
                )
            )
    others = (
        ("llama.cpp", f"vs_llama_cpp/{wanted}", "llama.cpp"),
        ("OpenVINO", "vs_openvino", "OpenVINO GenAI"),
    )
    return figures + [
        Figure(name, ratio(seconds[f"{who} step"], seconds["ours step"]), "x", "higher",
               what=f"plain decoding {at}, tokens/s over {label}")
        for who, name, label in others
        if f"{who} step" in seconds
    ]  # fmt: skip


def gaps(times: Sequence[float]) -> list[float]:
    """Between one token and the next."""
    return [after - before for before, after in pairwise(times)]


def batch(bench: DecodeBench) -> Measured:
    """Steps of several rows at once."""
    ids = rows_of(bench.ids, BATCH, CACHED[0])
    room = (STEPS + 1) * (bench.rounds + 1) + 1
    own, arms = Own(bench.engine), Arms()
    own.fill(ids, room)
    arms["ours"] = lambda: own.steps(STEPS + 1)[1:]
    if llama := bench.baselines.llama_cpp:
        llama.open("batch", ids, CACHED[0] + room)
        llama.fill("batch", ids)
        arms["llama.cpp"] = lambda: llama.steps("batch", STEPS + 1)[1:]
    seconds = in_turns(arms, bench.rounds)
    raw = {"batch_step_seconds": seconds, "batch": BATCH}
    if not llama:
        return [], raw
    llama.drop("batch")
    what = f"batch {BATCH} at {CACHED[0]} cached, tokens/s over llama.cpp's {BATCH} sequences"
    value = ratio(seconds["llama.cpp"], seconds["ours"])
    return [Figure(f"batch{BATCH}_vs_llama_cpp", value, "x", "higher", what=what)], raw


def prompt(bench: DecodeBench) -> Measured:
    """A prompt up to its next token."""
    ids = [bench.ids[:PROMPT]]
    own = Own(bench.engine)
    arms: Arms = {"ours": lambda: [own.fill(ids, 1)]}
    if llama := bench.baselines.llama_cpp:
        llama.open("prompt", ids, PROMPT + 1, by_prompt=True)
        arms["llama.cpp"] = lambda: [llama.fill("prompt", ids)]
    seconds = in_turns(arms, bench.rounds)
    raw: dict[str, Any] = {"prompt_seconds": seconds, "prompt_tokens": PROMPT}
    speed = PROMPT / middle(seconds["ours"])
    what = f"a prompt of {PROMPT} tokens"
    figures = [
        Figure("prefill_tokens_per_s", speed, "tokens/s", "higher", what=f"{what}, tokens/s")
    ]
    if llama:
        llama.drop("prompt")
        value = ratio(seconds["llama.cpp"], seconds["ours"])
        what = f"{what}, tokens/s over llama.cpp"
        figures.append(Figure("prefill_vs_llama_cpp", value, "x", "higher", what=what))
    return figures, raw
