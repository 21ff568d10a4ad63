"""Two processes train as one does."""

import pytest
import torch
from safetensors.torch import load_file

from tests.train.processes import one_and_two
from tests.train.test_killed import command

__all__ = ["command"]


@pytest.mark.slow
def test_two_processes_end_at_the_weights_of_one(command, tmp_path):
    """The same batches, each process with every other row of them: up to the order of sums."""
    options = ["--optimizer", "adamw", "--precision", "float32", "--layer-dropout", "0",
               "--lr", "0.1"]  # fmt: skip
    one_and_two(tmp_path, lambda out: [*command(out), *options], stop_at=3)
    ours, theirs, base = (
        load_file(tmp_path / name / "model.safetensors") for name in ("one", "two", "base")
    )
    assert any((ours[name] - base[name]).abs().max() > 1e-2 for name in ours)
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, atol=1e-4, rtol=1e-3)
