"""Loading holds no second copy of the weights: peak memory of a process that loads 140 MB."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig

from sparing.model.config import from_transformers
from sparing.model.matrix import FLUSHED_BYTES
from sparing.model.weights import expected_shapes

LOAD = """
import json, sys
from pathlib import Path
import torch
import transformers
from sparing.model.config import read_config
from sparing.model.assemble import load_decoder
def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])
torch.set_num_threads(1)
directory = Path(sys.argv[1])
read_config(directory)
base = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
decoder = load_decoder(directory, getattr(torch, sys.argv[3]), kind=sys.argv[2])
found = {"peak": status("VmHWM") - base, "left": status("VmRSS") - base, "step": decoder.step_bytes}
print(json.dumps(found))
"""
WIDE = {
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 4,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "vocab_size": 12_000,
}
MB = 2**20


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """Writes a checkpoint in float32, tied or not; returns its directory and bytes."""
    written = {}

    def directory(tied):
        if tied not in written:
            path = tmp_path_factory.mktemp("wide")
            config = AutoConfig.for_model("qwen3", **WIDE, tie_word_embeddings=tied)
            config.save_pretrained(path)
            shapes = expected_shapes(from_transformers(config))
            tensors = {name: torch.randn(shape) for name, shape in shapes.items()}
            save_file(tensors, path / "model.safetensors", {"format": "pt"})
            written[tied] = path, sum(tensor.nbytes for tensor in tensors.values())
        return written[tied]

    yield directory
    for path, _ in written.values():
        (path / "model.safetensors").unlink()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("kind", "dtype", "tied"),
    [
        ("auto", "float32", True),
        ("plain", "bfloat16", True),
        ("plain", "float32", False),
        ("packed", "float32", True),
    ],
)
def test_peak_memory(write, kind, dtype, tied):
    """Weights, the file's pages while they are mapped, and the head twice more while it is made.

    What timing reads between two products is bounded, and gone when it is done.
    """
    path, weights = write(tied)
    run = subprocess.run(
        [sys.executable, "-c", LOAD, str(path), kind, dtype],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"},  # what is freed is given back
    )
    found = json.loads(run.stdout)
    table = WIDE["vocab_size"] * WIDE["hidden_size"] * 4
    timing = min(weights, FLUSHED_BYTES) if kind == "auto" else 0
    print(found, weights)  # shown where it fails
    assert found["peak"] < 2 * weights + 2 * table + timing + 10 * MB
    held = weights if dtype == "float32" else weights // 2
    two_tables = tied and kind in ("auto", "packed")
    assert found["left"] < 1.5 * held + table * two_tables
    assert found["step"] == pytest.approx(held - (0 if tied else table * held / weights), abs=MB)
