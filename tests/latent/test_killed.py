"""`kill -9` at any moment of the curriculum, between stages too, and the same command again."""

import pytest

from tests.tiny import NARROW, checkpoint
from tests.train.killed import run
from tests.train.small import write_sums

MOMENTS = 6
MADE = ("model.safetensors", "latent.json", "latent.safetensors")


@pytest.mark.slow
def test_killed_at_any_move_and_resumed(tmp_path):
    """While it writes scores, settings, checkpoints or weights of a stage, or copies the last."""
    base = checkpoint(tmp_path / "base", **NARROW)
    task = write_sums(tmp_path / "maths.jsonl")

    def command(out):
        return [
            "train", "latent", "--base", str(base), "--task", str(task), "--out", str(out),
            "--steps", "2,2,2", "--batch-tokens", "600", "--save-every", "1", "--tau", "0.5",
            "--adapter", "4", "--threads", "1",
        ]  # fmt: skip

    code, moves = run(command(tmp_path / "unbroken"), tmp_path / "unbroken")
    assert (code, moves > 60) == (0, True)
    expected = [(tmp_path / "unbroken" / name).read_bytes() for name in MADE]
    for number in range(MOMENTS):
        out = tmp_path / f"out-{number}"
        kill_at = 1 + number * (moves - 1) // (MOMENTS - 1)
        assert run(command(out), out, kill_at) == (-9, kill_at)
        again = [*command(out), "--resume"]
        assert run(again, out, kill_at=9)[0] in (0, -9)
        assert run(again, out)[0] == 0
        assert [(out / name).read_bytes() for name in MADE] == expected, kill_at
        assert not [path.name for path in out.iterdir() if path.is_dir()]
