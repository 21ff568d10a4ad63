"""Workers end with the process that they work for, even when it is killed."""

import os
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from sparing.evaluate.process_pool import Workers
from tests.server.live import until


def nothing() -> None:
    return None


def say_and_wait(loaded: None, job: Path) -> list[Path]:
    job.write_text(str(os.getpid()))
    time.sleep(120)
    return [job]


def host(path: Path) -> None:
    with Workers(2, nothing, say_and_wait) as rows:
        list(rows([path / "0", path / "1"]))


@pytest.mark.slow
def test_killed_with_its_workers(tmp_path):
    process = get_context("spawn").Process(target=host, args=(tmp_path,))
    process.start()
    files = [tmp_path / "0", tmp_path / "1"]
    until(lambda: all(file.exists() and file.read_text() for file in files))
    pids = [int(file.read_text()) for file in files]
    process.kill()
    process.join()
    until(lambda: all(ended(pid) for pid in pids))


def ended(pid: int) -> bool:
    """Gone, or left by a parent that has yet to ask how it ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z"
