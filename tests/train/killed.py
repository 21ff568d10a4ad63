"""`sparing train reason` in a process of its own, and `kill -9` at any of its file moves."""

import os
import signal
import sys
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path

MOVES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}
PRELOADED = ["sparing.train.reason", "transformers.models.llama.modeling_llama"]
NEVER = 10**9


def server() -> ForkServerContext:
    """Processes that are there at once: what is slow to import is imported before they fork."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def run(arguments: Sequence[str], out: Path, kill_at: int = NEVER) -> tuple[int, int]:
    """Exit code (-9: killed) of a run, and how many files and folders in ``out`` it touched."""
    context = server()
    touched = context.Value("i", 0, lock=False)
    process = context.Process(target=_command, args=(arguments, str(out), kill_at, touched))
    process.start()
    process.join(120)
    assert process.exitcode is not None, "a run that hangs"
    return process.exitcode, touched.value


def _command(arguments: Sequence[str], out: str, kill_at: int, touched) -> None:
    def moved(event: str, given: tuple) -> None:
        if event in MOVES and str(given[0]).startswith(out):
            touched.value += 1
            if touched.value == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(moved)
    sys.argv = ["sparing", *arguments]
    from sparing.cli.main import main

    main()
