"""Turn other libraries' errors about a request into ours."""

import re
from collections.abc import Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from sparing.server.errors import Refused
from sparing.server.other_fields import FIELD_ERROR

UNIONS = frozenset(  # pydantic's names of union members within the place of an error
    ["str", "int", "float", "list[TextPart]", "list[str]"]
)
COMMAND = re.compile(r",? or [^,;]*`sparing [^`]*`")  # advice for the command line


def for_clients(message: str) -> str:
    """A message without the commands that only the server's owner can run."""
    return COMMAND.sub("", message)


def of_validation(error: RequestValidationError, content_type: str | None) -> Refused:
    """The most telling error: the field, what must hold, what came.

    ``content_type``: of the request
    """
    first = telling(error.errors())
    where, *place = first["loc"]
    if first["type"] == FIELD_ERROR:
        name = field_name([*place, first["ctx"]["field"]])
        return Refused(400, f"{name} {first['msg']}", param=name, code=first["ctx"]["code"])
    if first["type"] == "json_invalid":
        return Refused(400, f"a body must be JSON, got: {first['ctx']['error']}", code="bad_json")
    if where == "body" and not place and not is_json(content_type):
        return Refused(
            400,
            f"content-type must be application/json, got {content_type!a}; send that header",
            code="bad_content_type",
        )
    if where == "body" and not place and first["type"] != "value_error":
        return Refused(400, f"a body must be a JSON object: {first['msg']}", code="bad_json")
    name = field_name(place)
    if first["type"] == "extra_forbidden":
        return Refused(
            400,
            f"{name} is not supported here; leave it out",
            param=name,
            code="unsupported_parameter",
        )
    return Refused(400, complaint(name, first), param=name or None, code="invalid_value")


def is_json(content_type: str | None) -> bool:
    """Whether a body of this type is read as JSON; one without a type is."""
    kind = (content_type or "application/json").partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and "+json" in kind)


def telling(errors: Sequence[Any]) -> Any:
    """The first error, without the errors of a union's members of another type."""
    first = errors[0]
    same = [e for e in errors if e["loc"][:2] == first["loc"][:2]]
    return next((e for e in same if not e["type"].endswith("_type")), first)


def complaint(name: str, first: dict[str, Any]) -> str:
    """An error as one line."""
    if first["type"] == "missing":
        return f"{name} must be given"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return message if not name else f"{name}: {message}"
    message = message.replace("Input should be ", "must be ", 1)
    shown = ascii(first.get("input"))
    shown = shown if len(shown) <= 80 else shown[:80] + "..."
    return f"{name} {message}, got {shown}"


def field_name(place: list[Any]) -> str:
    """A field's name from its place, such as `messages[0].content`."""
    name = ""
    for part in place:
        if isinstance(part, int):
            name += f"[{part}]"
        elif part not in UNIONS:
            name += f".{part}" if name else str(part)
    return name


def of_status(error: HTTPException) -> Refused:
    """An error of the routing: an unknown path, a wrong method."""
    headers = dict(error.headers or {})
    if error.status_code == 404:
        return Refused(
            404, "the path must be in /openapi.json, got another; check it", code="not_found"
        )
    return Refused(error.status_code, str(error.detail), headers=headers)
