"""Loading holds no second copy of the weights: peak memory of a process that loads 140 MB."""

import json
import resource
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig

from sparing.model.config import from_transformers
from sparing.model.weights import expected_shapes

LOAD = """
import json, resource, sys
from pathlib import Path
import torch
import transformers
from sparing.model.config import read_config
from sparing.model.decoder import Decoder
torch.set_num_threads(1)
directory = Path(sys.argv[1])
read_config(directory)
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
decoder = Decoder.load(directory, getattr(torch, sys.argv[3]), kind=sys.argv[2])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"base": base * 1024, "peak": peak * 1024, "step": decoder.step_bytes}))
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
            tensors = {name: torch.zeros(shape) for name, shape in shapes.items()}
            save_file(tensors, path / "model.safetensors", {"format": "pt"})
            written[tied] = path, sum(tensor.nbytes for tensor in tensors.values())
        return written[tied]

    yield directory
    for path, _ in written.values():
        (path / "model.safetensors").unlink()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
@pytest.mark.parametrize(
    ("kind", "dtype", "tied"),
    [("auto", "float32", True), ("plain", "float32", False), ("packed", "float32", True)],
)
def test_peak_memory(write, kind, dtype, tied):
    """File pages that were read count as well: that is the second of the two."""
    path, weights = write(tied)
    run = subprocess.run(
        [sys.executable, "-c", LOAD, str(path), kind, dtype],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    found = json.loads(run.stdout)
    table = WIDE["vocab_size"] * WIDE["hidden_size"] * 4
    packed_head = table if tied and kind == "packed" else 0
    print(found["peak"] - found["base"], weights)
    assert found["peak"] - found["base"] < 2 * weights + packed_head + 10 * MB
    assert weights - found["step"] == pytest.approx(0 if tied else table, abs=MB / 4)
    assert resource.RUSAGE_SELF is not None
