"""stdin, stdout and stderr as they may be: closed, full, or not in UTF-8."""

import errno
import io
import json
import os
import sys
from typing import Any


def prepare() -> None:
    """Open the streams that the shell closed; stdout writes ? for what its encoding lacks.

    A closed stdout cannot be written to afterwards either, but it is said, and no file that is
    opened later takes its place.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def unwritten(probe: str = "") -> OSError | None:
    """Write what stdout still holds, and a probe; the error where that fails.

    Later output goes nowhere then.
    """
    try:
        sys.stdout.write(probe)
        sys.stdout.flush()
    except OSError as error:
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)
        return error
    return None


def report(error: OSError) -> None:
    """Say that stdout could not be written; a reader that left, as in a pipe to head, is fine."""
    if error.errno != errno.EPIPE:
        print(f"error: stdout must take what is written, got: {error.strerror}", file=sys.stderr)


def print_json(content: Any) -> None:
    """One object on stdout, in escapes where its encoding lacks characters."""
    whole = (sys.stdout.encoding or "utf-8").lower().replace("-", "").startswith("utf")
    print(json.dumps(content, ensure_ascii=not whole))
