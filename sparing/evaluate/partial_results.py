"""The rows of an unfinished evaluation, kept beside its JSON, so that a second run goes on."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from sparing.errors import OptionError


class PartialResults:
    """``FILE.part.jsonl``: a line with a fingerprint of all that decides the rows, then a row each.

    A context manager; ``rows`` are those found there. A line that a kill cut short is dropped, and
    without a row there is nothing to keep: the file begins with the first one.
    """

    def __init__(self, result: Path, fingerprint: Mapping[str, Any]) -> None:
        """Raises OptionError, naming a field that differs, where the rows are of other settings."""
        self.path = result.with_name(result.name + ".part.jsonl")
        self._header = {"fingerprint": json.loads(json.dumps(fingerprint))}
        self._file: IO[bytes] | None = None
        self.rows: list[dict[str, Any]] = []
        self._length = 0
        if self.path.exists():
            self._read(result)

    def __enter__(self) -> "PartialResults":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file:
            self._file.close()
            self._file = None

    def append(self, row: dict[str, Any]) -> None:
        """Keep a row; it is in the file when this returns."""
        if self._file is None:
            self._open()
        if not self.rows:
            self._write(self._header)
        self._write(row)
        self.rows.append(row)

    def remove(self) -> None:
        """Once the result is written."""
        self.path.unlink(missing_ok=True)

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "ab")  # noqa: SIM115 - closed in __exit__
        self._file.truncate(self._length)

    def _read(self, result: Path) -> None:
        whole = self.path.read_bytes()
        whole = whole[: whole.rfind(b"\n") + 1]
        try:
            header, *rows = [json.loads(line) for line in whole.splitlines()] or [self._header]
            found = dict(header["fingerprint"])
        except (ValueError, KeyError, TypeError):
            raise OptionError(
                f"{self.path} must hold the rows of an unfinished evaluation, got something else; "
                "delete it, or pass another --json"
            ) from None
        if not rows:
            return
        differ = differences(found, self._header["fingerprint"])
        if differ:
            raise OptionError(
                f"{self.path} holds {len(rows)} rows of an unfinished evaluation, which must have "
                f"the same settings to go on, got another {differ[0]}; repeat that command, "
                f"delete {self.path.name}, or pass another --json than {result.name}"
            )
        self.rows, self._length = rows, len(whole)

    def _write(self, content: dict[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(content).encode() + b"\n")
        self._file.flush()


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The fields in which two fingerprints differ, each with both values."""
    return [
        f"{field} ({then.get(field)!r} then, {now.get(field)!r} now)"
        for field in [*now, *(then.keys() - now.keys())]
        if then.get(field) != now.get(field)
    ]
