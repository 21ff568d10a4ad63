"""What a small model was trained for, kept beside its weights: other answers are flagged."""

import re
from dataclasses import dataclass
from pathlib import Path

from sparing.errors import ModelError
from sparing.files import read_json

SCOPE_FILE = "scope.json"


@dataclass(frozen=True)
class Scope:
    """Questions that a model knows, as patterns, and what to say of any other.

    A model without ``scope.json`` knows no bounds: nothing is ever said.
    """

    questions: tuple[re.Pattern[str], ...]
    notice: str

    @classmethod
    def load(cls, directory: Path) -> "Scope | None":
        """The scope of a checkpoint; raises ModelError where its file is no such thing."""
        content = read_json(directory / SCOPE_FILE)
        if not content:
            return None
        try:
            patterns = tuple(re.compile(pattern) for pattern in content["questions"])
            return cls(patterns, str(content["notice"]))
        except (KeyError, TypeError, re.error) as error:
            raise ModelError(
                f"{directory / SCOPE_FILE} must hold questions (patterns) and a notice, "
                f"got: {type(error).__name__} {error}; fetch it again"
            ) from None

    def outside(self, prompt: str) -> str | None:
        """The notice, where a prompt asks nothing that the model knows."""
        return None if any(pattern.search(prompt) for pattern in self.questions) else self.notice
