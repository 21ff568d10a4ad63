"""Errors that a user can correct.

A message is one line with three parts: what must hold, what came, what to do. The command line
prints it and exits with `exit_code`; the server answers 400 with it. Any other exception is a bug
in Sparing and keeps its traceback.
"""

from typing import Any


class SparingError(Exception):
    """An error that the user can correct; the message says how."""

    exit_code = 2


class ModelError(SparingError):
    """A model, checkpoint, config or tokenizer cannot be used."""


class UnknownArchitecture(ModelError):
    """A model that our own decoder does not run, though transformers may; ``what``: in a word."""

    def __init__(self, message: str, what: str) -> None:
        super().__init__(message)
        self.what = what

    def __reduce__(self) -> Any:
        """How it goes to another process."""
        return type(self), (str(self), self.what)


class OptionError(SparingError, ValueError):
    """An option, or a pair of options, cannot work. Raised before any weights load."""


class PromptError(SparingError):
    """A prompt cannot be used: empty, too long, or a chat for a model without a template."""


class PromptTooLong(PromptError):
    """A prompt leaves no room in the model's context."""


def reason(error: BaseException) -> str:
    """Another library's error as one line; a first line ending in a colon takes the next too."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def message(error: BaseException) -> str:
    """An error as one line: ours as it is, any other with its type."""
    if isinstance(error, SparingError):
        return str(error)
    name, said = type(error).__name__, reason(error)
    return said if said == name else f"{name}: {said}"
