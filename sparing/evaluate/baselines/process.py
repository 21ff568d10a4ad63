"""An engine in another interpreter, called over pipes."""

import json
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from sparing.errors import OptionError, SparingError

SCRIPTS = Path(__file__).parent / "scripts"


class BaselineError(SparingError):
    """An engine that does not run, or not with this model; ``name``: which."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} cannot be measured: {why}")
        self.name, self.why = name, why


def check_interpreter(flag: str, python: str) -> None:
    """Refuse what cannot be run, before any work; raises OptionError."""
    if shutil.which(python) is None:
        raise OptionError(
            f"{flag} must be a Python interpreter, got {python!r}; give its path, as in "
            "env/bin/python"
        )


class Process:
    """A script's engine (``serve.py``) in ``python``; it ends with this object, or by ``close``.

    It has a session of its own: Ctrl-C reaches this process alone, which then ends the other.
    """

    def __init__(self, name: str, python: str, script: Path) -> None:
        self.name = name
        self._said = TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [python, str(SCRIPTS / "serve.py"), str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            start_new_session=True,
        )

    def call(self, method: str, /, **arguments: Any) -> Any:
        """What a method of the engine gives; raises BaselineError."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps({"call": method, "arguments": arguments}) + "\n")
            stdin.flush()
            line = stdout.readline()
        except (BrokenPipeError, ValueError):
            line = ""
        except KeyboardInterrupt:
            self.close()
            raise
        if not line:
            raise BaselineError(self.name, self._end())
        answer = json.loads(line)
        if "error" in answer:
            raise BaselineError(self.name, last_line(answer["error"]))
        return answer["value"]

    def close(self) -> None:
        """End it now."""
        self._process.kill()
        self._process.wait()

    def _end(self) -> str:
        """How it came to an end, with the last that it said."""
        code = self._process.wait()
        self._said.seek(0)
        said = last_line(self._said.read().decode(errors="replace"))
        return f"it ended with code {code}{said and ': '}{said}"


def last_line(text: str) -> str:
    """Where tracebacks and C++ exceptions say what is wrong."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
