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
decoder = load_decoder(directory, sys.argv[2])
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
    ("weights", "tied", "share"),
    [
        ("float32", True, 1),
        ("float32", False, 1),
        ("bfloat16", True, 1 / 2),
        ("q8_0", True, 8.5 / 32),
        ("q4_0", False, 4.5 / 32),
    ],
)
def test_peak_memory(write, weights, tied, share):
    """The packed weights, and one of the file's matrices: its pages while it is packed, a copy."""
    path, size = write(tied)
    run = subprocess.run(
        [sys.executable, "-c", LOAD, str(path), weights],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"},  # what is freed is given back
    )
    found, held = json.loads(run.stdout), size * share
    table = WIDE["vocab_size"] * WIDE["hidden_size"] * 4
    print(found, size)  # shown where it fails
    assert found["peak"] < held + size + 2 * table + 10 * MB
    assert found["left"] < 1.02 * held + 10 * MB
    untied = 0 if tied else table * share
    assert found["step"] == pytest.approx(held - untied, rel=0.01, abs=MB)
