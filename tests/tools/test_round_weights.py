"""Weights rounded for an archive: nearest, ties to even, all else as it was."""

import json
import shutil
import zlib

import pytest
import torch
from safetensors.torch import load_file

from sparing import load
from sparing.model.sources import find_model
from tools.round_weights import main, rounded


@pytest.mark.parametrize("bits", [7, 10])
def test_as_torch_rounds(bits):
    """Bfloat16 has 7 bits of mantissa, float16 has 10."""
    values = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    dtype = {7: torch.bfloat16, 10: torch.float16}[bits]
    values = values[values.abs() > 1e-3]  # float16 has fewer bits near zero
    assert torch.equal(rounded(values, bits), values.to(dtype).float())


def test_what_has_that_few_bits_or_is_no_float32_stays():
    assert torch.equal(rounded(torch.tensor([1.5, -0.0, 3.0]), 1), torch.tensor([1.5, -0.0, 3.0]))
    ids = torch.tensor([(1 << 20) + 1])
    assert rounded(ids, 1) is ids


def test_a_rounded_model_loads_with_all_that_is_tied_to_it(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(find_model("pocket-latent"), folder)
    before = json.loads((folder / "latent.json").read_text())["fingerprint"]
    main(folder, 4)
    engine = load(folder)
    assert engine.latents is not None
    assert engine.predictor is not None
    assert json.loads((folder / "layer_sets.json").read_text())["fingerprint"] != before
    file = (folder / "model.safetensors").read_bytes()
    assert len(zlib.compress(file)) < 0.5 * len(file)
    assert all(
        tensor.dtype == torch.float32 for tensor in load_file(folder / "model.safetensors").values()
    )
