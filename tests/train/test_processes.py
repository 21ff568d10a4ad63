"""Two processes train as one does."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from tests.train.test_killed import command

__all__ = ["command"]


@pytest.mark.slow
def test_two_processes_end_at_the_weights_of_one(command, tmp_path):
    """The same batches, each process with every other row of them: up to the order of sums."""
    options = ["--optimizer", "adamw", "--precision", "float32", "--layer-dropout", "0",
               "--lr", "0.1"]  # fmt: skip
    one = [sys.executable, "-m", "sparing.cli.main"]
    two = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
           "-m", "sparing.cli.main"]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for name, launch, more in (
        ("one", one, []),
        ("two", two, ["--stop-at", "3"]),
        ("two", two, ["--resume"]),
    ):
        ran = subprocess.run(
            [*launch, *command(tmp_path / name), *options, *more],
            env=environment, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
    ours, theirs, base = (
        load_file(tmp_path / name / "model.safetensors") for name in ("one", "two", "base")
    )
    assert any((ours[name] - base[name]).abs().max() > 1e-2 for name in ours)
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, atol=1e-4, rtol=1e-3)
