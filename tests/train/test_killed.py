"""`kill -9` at any moment of a run, and the same command with --resume."""

import pytest

from sparing.train import checkpoint
from tests.tiny import checkpoint as write_checkpoint
from tests.train.killed import run
from tests.train.small import SHAPE, write_sums

MOMENTS = 8


@pytest.fixture
def command(tmp_path):
    """The arguments of a run of six steps that saves every other one, into a folder."""
    shape = {name: SHAPE[name] for name in SHAPE if not name.endswith(("_id", "_size"))}
    shape["max_position_embeddings"] = 256
    base = write_checkpoint(tmp_path / "base", hidden_size=16, intermediate_size=24, **shape)
    task = write_sums(tmp_path / "maths.jsonl")

    def arguments(out):
        return [
            "train", "reason", "--base", str(base), "--task", str(task), "--out", str(out),
            "--steps", "6", "--batch-tokens", "600", "--save-every", "2", "--validate-every", "4",
            "--threads", "1",
        ]  # fmt: skip

    return arguments


@pytest.mark.slow
def test_killed_at_any_move_and_resumed(command, tmp_path):
    """Killed while it writes settings, checkpoints or weights, or clears up; and again after."""
    code, moves = run(command(tmp_path / "unbroken"), tmp_path / "unbroken")
    expected = (tmp_path / "unbroken" / "model.safetensors").read_bytes()
    assert (code, moves > 20) == (0, True)
    for number in range(MOMENTS):
        out = tmp_path / f"out-{number}"
        kill_at = 1 + number * (moves - 1) // (MOMENTS - 1)
        assert run(command(out), out, kill_at) == (-9, kill_at)
        if not (out / "model.safetensors").exists():  # then the checkpoints are all there is
            whole = [out / f"step-{n}" / "random_states_0.pkl" for n in checkpoint.steps(out)]
            assert all(path.exists() for path in whole)
        again = [*command(out), "--resume"]
        assert run(again, out, kill_at=7)[0] in (0, -9)
        assert run(again, out)[0] == 0
        assert (out / "model.safetensors").read_bytes() == expected, kill_at
        assert not [path.name for path in out.iterdir() if path.is_dir()]
