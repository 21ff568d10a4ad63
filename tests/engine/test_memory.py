"""Memory is constant however long the thinking gets: of the cache, and of the whole process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import tiny

TOKENS, EARLY = 5_000, 600
# Argument: a checkpoint. Prints peak resident bytes and cache bytes, with a budget, then without.
SCRIPT = rf"""
import json, re, sys
from pathlib import Path
from sparing import Memory, Sampling, load

STATUS = Path("/proc/self/status")
engine = load(sys.argv[1], threads=1)
sampling = Sampling(temperature=0.8, seed=1, max_new_tokens={TOKENS}, ignore_eos=True)

def peak():
    # ru_maxrss would do, but a process inherits it from the one that started it
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())[1])

def measure(memory):
    stream = engine.stream("Q", memory, sampling=sampling)
    cache = stream._run.loop.cache
    bytes_of, evictions, tokens = {{}}, 0, 0
    def note(name):
        held = sum(t.untyped_storage().nbytes() for t in cache.kv)
        bytes_of[name] = {{"cache": held, "process": peak()}}
    for event in stream:
        evictions += event.type == "evict"
        tokens += event.type == "token"
        if event.type == "evict" and evictions == 1:
            note("first eviction")
        if event.type == "token" and tokens == {EARLY}:
            note("early")
        if event.type == "token" and tokens == {TOKENS}:
            note("end")
    return bytes_of | {{"evictions": evictions, "tokens": tokens}}

print(json.dumps([measure(Memory(budget=256)), measure(None)]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_five_thousand_tokens_in_the_memory_of_256():
    wide = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    path = tiny(num_key_value_heads=4, head_dim=128, max_position_embeddings=8192, **wide)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    spared, full = json.loads(done.stdout)
    slot = 2 * 2 * 4 * 128 * 4

    assert spared["tokens"] == full["tokens"] == TOKENS
    assert spared["evictions"] > 30
    assert spared["first eviction"]["cache"] == spared["end"]["cache"] == 256 * slot
    grown = spared["end"]["process"] - spared["early"]["process"]
    assert grown < 0.2 * TOKENS * slot  # the events of all tokens, not their keys and values

    # the control: what is measured does grow where nothing is evicted
    assert full["evictions"] == 0
    assert full["end"]["cache"] == (1 + TOKENS) * slot > 5 * full["early"]["cache"]
    assert full["end"]["process"] > 1.05 * full["early"]["process"]
    assert full["end"]["process"] - spared["end"]["process"] > 0.8 * full["end"]["cache"]
