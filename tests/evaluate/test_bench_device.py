"""`sparing bench device`: every arm on a small model, on the CPU and on a device of torch's own."""

import json

import pytest

from sparing.evaluate import bench_device
from tests.elsewhere import device


def test_the_command(sparing, tmp_path):
    out = tmp_path / "device.json"
    small = ("--shape", "tiny", "--dtype", "float32", "--prompt", 16, "--max-new-tokens", 24)
    ask = ("bench", "device", "--device", "cpu", *small, "--rows", "1,3", "--n", 1)
    assert sparing(*ask, "--json", out).code == 0
    content = json.loads(out.read_text())
    assert [row["name"] for row in content["rows"]] == [
        f"{way}_vs_generate/{rows}" for rows in (1, 3) for way in bench_device.WAYS
    ]
    assert content["raw"]["evictions/3"] > 0
    assert 0 <= content["raw"]["accepted/1"] <= 1


@pytest.mark.slow
def test_elsewhere():
    import torch

    model = bench_device.random_model("tiny", torch.float32, "cpu").to(device())
    figures, raw = bench_device.bench_device(model, [2], 16, 24, 1)
    assert len(figures) == len(bench_device.WAYS)
    assert raw["device"] == f"{device()}:0"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--shape", "x"), "--shape must be one of qwen3-1.7b, tiny, got 'x'"),
        (("--dtype", "int8"), "--dtype must be one of float32, bfloat16"),
        (("--rows", "1,a"), "--rows must be whole numbers with commas, such as 1,32, got '1,a'"),
    ],
)
def test_wrong_asked(sparing, wrong, said):
    done = sparing("bench", "device", "--device", "cpu", *wrong)
    assert done.code == 2
    assert f"error: {said}" in done.err
