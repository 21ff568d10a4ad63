"""Options by name and value, as other programs hand them over: the names of the command line."""

from collections.abc import Mapping
from typing import Any, TypeVar

from sparing.cli.fields import EVERY, Flags, built, flags_of
from sparing.errors import OptionError
from sparing.options import Options

Given = TypeVar("Given", bound=Options)


def named_options(
    options: type[Given], values: Mapping[str, Any], kind: str, how: Flags = EVERY
) -> Given:
    """The options that ``values`` give; ``kind``: what a name is called, for errors.

    Raises OptionError in the names of ``values``, for an unknown one too.
    """
    known = flags_of(options, how)
    for name in values:
        if name not in known:
            raise OptionError(f"a {kind} must be one of {', '.join(sorted(known))}, got {name}")
    found = built(options, dict.fromkeys(known) | dict(values), how, shown=str)
    assert isinstance(found, options)
    return found
