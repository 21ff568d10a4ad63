"""A server to be measured, in a process of its own."""

import re
import subprocess
import sys
from collections.abc import Sequence

import psutil

from sparing.errors import ModelError

END_S = 60  # for an orderly end, which takes the server's grace at most


class ServerProcess:
    """A context manager: `sparing serve` with ``flags``, once it listens at ``port``."""

    def __init__(self, flags: Sequence[str]) -> None:
        command = [sys.executable, "-m", "sparing.cli.main", "serve", "--quiet", "--port"]
        command += ["0", *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        said = []
        assert self.process.stderr is not None
        for line in self.process.stderr:
            said.append(line.strip())
            if found := re.search(r"http://127\.0\.0\.1:(\d+)/v1", line):
                self.port = int(found[1])
                return
        raise ModelError(f"the server must start, got: {' '.join(said)}")

    @property
    def resident_bytes(self) -> int:
        return psutil.Process(self.process.pid).memory_info().rss

    def __enter__(self) -> "ServerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        """An orderly end, or an end."""
        self.process.terminate()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
