"""`sparing bench decode --text`: perplexity, beside llama.cpp's on the same ids."""

from math import exp

from sparing.evaluate.bench_decode import DecodeBench, Measured
from sparing.evaluate.own import Own
from sparing.evaluate.report import Figure


def perplexity(bench: DecodeBench) -> Measured:
    """Window by window, each from an empty cache."""
    if not bench.windows:
        return [], {}
    own = Own(bench.engine)
    arms = {"ours": own.nll}
    if llama := bench.baselines.llama_cpp:
        arms["llama.cpp"] = llama.nll
    nll = {who: [score(ids) for ids in bench.windows] for who, score in arms.items()}
    tokens = sum(len(ids) - 1 for ids in bench.windows)
    found = {who: exp(sum(scores) / tokens) for who, scores in nll.items()}
    of = f"perplexity of {tokens:,} tokens"
    figures = [Figure("perplexity", found["ours"], "", "lower", what=of)]
    if llama:
        value = found["ours"] / found["llama.cpp"]
        what = f"{of}, over llama.cpp's on the same GGUF"
        figures.append(Figure("perplexity_vs_llama_cpp", value, "x", "lower", what=what))
    return figures, {"nll": nll, "perplexity": found, "scored_tokens": tokens}
