"""The errors that a user can mend.

A message is one line and says three things: what must hold, what came instead, what to do. The
command line prints it as it is and ends with `exit_code`; the server answers 400 with it. Whatever
else goes wrong is our own mistake and keeps its traceback.
"""


class SparingError(Exception):
    """Something that the user can mend; the message says how."""

    exit_code = 2


class ModelError(SparingError):
    """A model, checkpoint, config or tokenizer cannot be used."""


class OptionError(SparingError, ValueError):
    """An option, or a pair of options, that cannot work. Raised before any weights load."""


class PromptError(SparingError):
    """A prompt that cannot be used: empty, too long, or a chat where the model has no template."""


def reason(error: BaseException) -> str:
    """What another library's error says in one line; a line that only announces takes the next."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def message(error: BaseException) -> str:
    """What an error says in one line: ours as it is, any other with its type."""
    if isinstance(error, SparingError):
        return str(error)
    name, said = type(error).__name__, reason(error)
    return said if said == name else f"{name}: {said}"
