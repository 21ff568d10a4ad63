"""The clock of `sparing bench memory`: evictions and predictor are inside it."""

from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from sparing.api import Engine
from sparing.engine.result import Result
from sparing.evaluate.bench_decode import filled_cache, pass_over
from sparing.evaluate.bench_memory_rows import Plan
from sparing.evaluate.report import Figure
from sparing.evaluate.timing import interleaved, paired_ratio
from sparing.options import Depth, Sampling

ROUNDS = 5
STEPS = 200  # of the predictor against a step
SHARE, NEW_TOKENS, PROMPTS = 0.25, 512, 4
OFF = Depth(draft="off")
Measured = tuple[list[Figure], dict[str, Any]]


def speed_figures(engine: Engine, other: Any, plan: Plan, rounds: int = ROUNDS) -> Measured:
    """All of them, and the raw seconds. ``other``: the model in transformers."""
    figures, raw = against_transformers(engine, other, plan, rounds)
    share, share_raw = predictor_share(engine)
    return [*share, *figures], raw | share_raw


def predictor_share(engine: Engine) -> Measured:
    """The predictor on one token against the pass that brought its hidden state."""
    predictor = engine.predictor
    if predictor is None:
        return [], {}
    cache = filled_cache(engine, NEW_TOKENS, 1)
    step = pass_over(engine, cache, NEW_TOKENS, 1)
    hidden = step().hidden
    arms = {"predictor": lambda: predictor(hidden), "step": step}
    seconds = interleaved(arms, STEPS, warm_up=5)
    figure = Figure(
        "predictor_share_of_step",
        median(seconds["predictor"]) / median(seconds["step"]),
        "share",
        "lower",
        0.03,
        f"the predictor's seconds on a token over a decode step's, {NEW_TOKENS} cached",
    )
    return [figure], {"predictor_seconds": seconds}


@dataclass
class Said:
    """What the last round gave: our results, and the bytes of transformers' caches."""

    ours: list[Result]
    their_bytes: list[int]


def against_transformers(engine: Engine, other: Any, plan: Plan, rounds: int) -> Measured:
    """A problem of each task, the same number of new tokens, batch 1, greedy: ours under a budget,
    theirs with all kept.

    No figure where a row of ours could not go on under its budget.
    """
    asked = [engine.chat.question(question) for question in first_questions(plan)]
    prompts = [torch.tensor([engine.chat.encode(a).ids]) for a in asked]
    lengths = [prompt.shape[1] for prompt in prompts]
    count = min(NEW_TOKENS, engine.decoder.shape.context - max(lengths))
    memories = [plan.memory(("auto", SHARE), length, count) for length in lengths]
    sampling = Sampling(temperature=0, max_new_tokens=count, ignore_eos=True)
    said = Said([], [])

    def ours() -> None:
        pairs = zip(asked, memories, strict=True)
        said.ours = [engine.generate([a], m, OFF, None, sampling)[0] for a, m in pairs]

    def theirs() -> None:
        said.their_bytes = [generate(other, prompt, count) for prompt in prompts]

    seconds = interleaved({"ours": ours, "theirs": theirs}, rounds)
    stats = [result.stats.to_dict() for result in said.ours]
    raw = {"speed_seconds": seconds, "speed_stats": stats, "speed_kv_bytes": said.their_bytes}
    if any(of_row["new_tokens"] < count for of_row in stats):
        return [], raw
    kv = sum(of_row["kv_bytes_peak"] for of_row in stats) / sum(said.their_bytes)
    time = paired_ratio(seconds["ours"], seconds["theirs"])
    how = f"{count} new tokens at {SHARE:g} ({stats[0]['policy']}) over transformers.generate"
    return [
        Figure("time_vs_transformers", time, "x", "lower", what=f"seconds, {how}"),
        Figure("kv_bytes_vs_transformers", kv, "x", "lower", what=f"KV bytes, {how}"),
    ], raw


def first_questions(plan: Plan) -> list[str]:
    """Of the first tasks, the first problem's."""
    first: dict[str, str] = {}
    for problem in plan.problems:
        first.setdefault(problem.task, problem.question)
    return list(first.values())[:PROMPTS]


@torch.inference_mode()
def generate(model: Any, prompt: torch.Tensor, count: int) -> int:
    """transformers with everything kept; the bytes of its keys and values at the end."""
    found = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        min_new_tokens=count,
        max_new_tokens=count,
        return_dict_in_generate=True,
    )
    layers = found.past_key_values.layers
    return sum(t.untyped_storage().nbytes() for layer in layers for t in (layer.keys, layer.values))
