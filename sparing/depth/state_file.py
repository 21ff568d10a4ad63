"""What engines have learned about drafting, on disk: the next one starts warm."""

import contextlib
import json
from typing import Any

from sparing.files import state_folder, write_atomically


class StateFile:
    """One file a checkpoint, one entry a setting.

    All of it can be measured again: a missing or broken file counts as empty, and a folder that
    cannot be written keeps nothing.

    ``here``: fingerprint of the checkpoint's files.
    ``setting``: machine, dtype, threads; measurements under one say nothing about another.
    """

    def __init__(self, here: str, setting: str) -> None:
        self.path, self.setting = state_folder() / "depth" / f"{here}.json", setting

    def read(self) -> dict[str, Any]:
        """The entry of the setting."""
        found = self._all().get(self.setting)
        return found if isinstance(found, dict) else {}

    def write(self, content: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            write_atomically(self.path, json.dumps(self._all() | {self.setting: content}) + "\n")

    def _all(self) -> dict[str, Any]:
        try:
            found = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
