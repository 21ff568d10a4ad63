"""`sparing bench decode --long`: thousands of sampled tokens, under a budget and without one."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sparing.engine.row import Request
from sparing.evaluate.baselines.llama_cpp import LLAMA_CPP
from sparing.evaluate.baselines.openvino import OPENVINO, OPENVINO_EVICTION
from sparing.evaluate.baselines.transformers import Transformers
from sparing.evaluate.bench_decode import OFF, DecodeBench, Measured
from sparing.evaluate.report import Figure
from sparing.options import Memory, Sampling

BUDGET, NEW_TOKENS = 768, 4096
TEMPERATURE, TOP_P = 0.8, 0.95
WARM_UP_TOKENS = 16
ROWS = {
    "transformers": "long_vs_transformers",
    LLAMA_CPP: "long_vs_llama_cpp",
    OPENVINO: "long_vs_openvino",
    OPENVINO_EVICTION: "long_vs_openvino_eviction",
}


def long_run(bench: DecodeBench) -> Measured:
    """One run of each, after a few tokens; the baselines keep everything unless they evict."""
    engine, question = bench.engine, bench.engine.chat.question(bench.prompts[0])
    prompt_tokens = len(engine.chat.encode(question).ids)
    count = min(NEW_TOKENS, engine.decoder.shape.context - prompt_tokens)
    sampling = Sampling(
        temperature=TEMPERATURE, top_p=TOP_P, seed=0, max_new_tokens=count, ignore_eos=True
    )
    request = engine.request(question, sampling=sampling)
    arms: dict[str, Callable[[Request], Any]] = dict(bench.baselines.engines)
    if llama := bench.baselines.llama_cpp:
        llama.tune(bench.ids[: count // 2])
    if bench.other is not None:
        arms["transformers"] = Transformers(bench.other)

    def ours(asked: Request) -> None:
        few = sampling.model_copy(update={"max_new_tokens": asked.limits.max_new_tokens})
        engine.generate([question], Memory(budget=BUDGET), OFF, None, few)

    seconds = {}
    for name, run in {"ours": ours, **arms}.items():
        few = replace(request.limits, max_new_tokens=WARM_UP_TOKENS)
        run(replace(request, limits=few))
        begun = time.perf_counter()
        run(request)
        seconds[name] = time.perf_counter() - begun
    what = f"{count:,} sampled tokens at budget {BUDGET}, no drafts, seconds over"
    figures = [
        Figure(row, seconds["ours"] / seconds[name], "x", "lower", what=f"{what} {name}")
        for name, row in ROWS.items()
        if name in seconds
    ]
    return figures, {"long_seconds": seconds, "long_tokens": count}
