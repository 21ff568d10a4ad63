"""A command by one process, and by two that are cut off and go on."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def one_and_two(tmp_path: Path, command: Callable[[Path], list[str]], stop_at: int) -> None:
    """`sparing` with the arguments that ``command`` has for a folder: for ``one``, and for ``two``,
    which is stopped once."""
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for name, how, more in (
        ("one", [], []),
        ("two", launch, ["--stop-at", str(stop_at)]),
        ("two", launch, ["--resume"]),
    ):
        ran = subprocess.run(
            [sys.executable, *how, "-m", "sparing.cli.main", *command(tmp_path / name), *more],
            env=environment, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
