"""The scope of a small model, stored beside its weights: answers outside of it get a notice."""

import re
from dataclasses import dataclass
from pathlib import Path

from sparing.errors import ModelError
from sparing.files import read_json

SCOPE_FILE = "scope.json"


@dataclass(frozen=True)
class Scope:
    """Patterns of the questions a model was trained on, and a notice for any other question.

    A model without ``scope.json`` has no scope, and no notice.
    """

    questions: tuple[re.Pattern[str], ...]
    notice: str

    @classmethod
    def load(cls, directory: Path) -> "Scope | None":
        """Read a checkpoint's scope; raises ModelError for an invalid file."""
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
        """The notice, if no pattern matches the prompt."""
        return None if any(pattern.search(prompt) for pattern in self.questions) else self.notice
