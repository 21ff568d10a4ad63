"""Errors in OpenAI's format."""

from typing import Any

from pydantic import BaseModel
from starlette.responses import JSONResponse


class ErrorDetail(BaseModel):
    """An error.

    ``param``: the field at fault, if any
    ``code``: a fixed name of the error, for programs
    """

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    error: ErrorDetail


class Refused(Exception):
    """An error as an HTTP answer: its ``status``, headers and body."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type_: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers
        self.detail = ErrorDetail(message=message, type=type_, param=param, code=code)

    @property
    def body(self) -> dict[str, Any]:
        return {"error": self.detail.model_dump()}

    def response(self) -> JSONResponse:
        return ascii_json(self.body, self.status, self.headers)


def ascii_json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Any:
    """A JSON response for any text, lone surrogates included."""
    return AsciiJSON(content, status, headers)


class AsciiJSON(JSONResponse):
    """JSON with escapes: JSONResponse fails on text outside of UTF-8, such as lone surrogates."""

    def render(self, content: Any) -> bytes:
        import json

        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def out_of_time(seconds: float) -> Refused:
    return Refused(
        504,
        f"a request must end within {seconds:g} s; ask for fewer tokens or try again later",
        type_="timeout_error",
        code="timeout",
    )


def shutting_down() -> Refused:
    return Refused(
        503,
        "the server is shutting down; try again later",
        type_="server_error",
        code="shutting_down",
        headers={"retry-after": "5"},
    )
