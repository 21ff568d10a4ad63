"""The parts of `sparing bench decode`, in the order in which they run."""

from sparing.evaluate.bench_decode import BATCH, CACHED, Part, bounded, plain
from sparing.evaluate.bench_decode_load import loading, two_engines
from sparing.evaluate.bench_decode_long import long_run
from sparing.evaluate.bench_decode_pass import PROMPT, batch, prompt, steps_and_passes
from sparing.evaluate.bench_decode_perplexity import perplexity

FILL_TOKENS = max(*CACHED, BATCH * CACHED[0], PROMPT)


def parts(long: bool) -> list[Part]:
    """``long``: with thousands of sampled tokens."""
    found: list[Part] = [plain, steps_and_passes, batch, prompt, bounded, perplexity]
    return [*found, loading, two_engines, *([long_run] if long else [])]
