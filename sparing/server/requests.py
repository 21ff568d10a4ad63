"""The bodies of requests. Every field is checked; null is the same as absent."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sparing.options import Depth, Latent, Memory, Sampling
from sparing.server.other_fields import (
    OF_CHAT,
    OF_MESSAGES,
    OF_STREAMS,
    OF_TEXT,
    Rule,
    schema_of,
    without_others,
    wrong,
)

MOST_CHOICES, MOST_PROMPTS = 16, 64


def described(schema: dict[str, Any], body: type["Body"]) -> None:
    """Add to a schema that fields may be null, and the fields of other servers."""
    schema["properties"] |= {name: schema_of(rule) for name, rule in body.others.items()}
    nullable(schema)


def nullable(schema: dict[str, Any]) -> None:
    """Let every field that is not required be null."""
    for name, field in schema["properties"].items():
        if name in schema.get("required", ()) or field.get("type") == "null":
            continue
        choices = field.pop("anyOf", None)
        if choices is None and not field.keys() & {"type", "$ref", "items"}:
            continue  # anything, or an enum with null
        if choices is None:
            inner = {key: field.pop(key) for key in list(field) if key not in ("title", "default")}
            choices = [inner]
        null = {"type": "null"}
        field["anyOf"] = [*choices, *([] if null in choices else [null])]


def given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are not null."""
    return {name: value for name, value in fields.items() if value is not None}


class Body(BaseModel):
    """A body without unknown fields and without conversions between types.

    ``others``: fields of other servers
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, json_schema_extra=described)
    others: ClassVar[Mapping[str, Rule]] = {}

    @model_validator(mode="before")
    @classmethod
    def _given(cls, fields: Any) -> Any:
        return cls.prepared(given(fields)) if isinstance(fields, dict) else fields

    @classmethod
    def prepared(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields without those of other servers."""
        return without_others(fields, cls.others)


class SparingOptions(Body):
    """Sparing's own options, as in Python.

    ``memory``, ``depth``, ``latent``: the savings
    ``sampling``: sampling options beyond OpenAI's fields
    ``template_options``: variables of the chat template
    ``no_think``: ask the chat template for an answer without thinking
    ``thought_logprobs``: with logprobs, those of the thought too
    """

    memory: Memory | None = None
    depth: Depth | None = None
    latent: Latent | None = None
    sampling: Sampling | None = None
    template_options: dict[str, Any] = {}
    no_think: bool | None = None
    thought_logprobs: bool = False

    @classmethod
    def prepared(cls, fields: dict[str, Any]) -> dict[str, Any]:
        return {n: given(v) if isinstance(v, dict) else v for n, v in fields.items()}


class StreamOptions(Body):
    """``include_usage``: add a last chunk with the numbers of tokens."""

    others: ClassVar[Mapping[str, Rule]] = OF_STREAMS
    include_usage: bool = False


class CommonRequest(Body):
    """The common fields of both kinds of requests."""

    model: str
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] = 1
    stop: str | list[str] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    sparing: SparingOptions = SparingOptions()

    @model_validator(mode="after")
    def _streams(self) -> "CommonRequest":
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream, got none; pass stream=true too")
        return self

    @property
    def usage_too(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def thought_logprobs(self) -> bool:
        return self.sparing.thought_logprobs

    @property
    def new_tokens(self) -> int | None:
        """The most new tokens, if given."""
        raise NotImplementedError

    @property
    def told(self) -> int | None:
        """The number of likeliest tokens to return with log-probabilities; None: no logprobs."""
        raise NotImplementedError

    def sampling(self) -> dict[str, Any]:
        """The given fields by their names in Sparing's ``Sampling``."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop
        values = {
            "stop": stop,
            "seed": None if self.seed is None else self.seed % 2**63,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_new_tokens": self.new_tokens,
            "logprobs": self.told,
        }
        return {name: value for name, value in values.items() if value is not None}


class TextPart(Body):
    """A part of a message; fields without a meaning here are ignored, as in messages."""

    model_config = ConfigDict(extra="ignore")
    type: Literal["text"]
    text: str


class Message(Body):
    """A turn. Fields without a meaning here, such as ``name``, are ignored.

    ``content``: an assistant's may be absent
    ``reasoning_content``, ``reasoning``: an assistant's thinking, for templates with that field
    """

    model_config = ConfigDict(extra="ignore")
    others: ClassVar[Mapping[str, Rule]] = OF_MESSAGES
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None

    @model_validator(mode="after")
    def _says(self) -> "Message":
        if self.content is None and self.role != "assistant":
            raise wrong("content", "must be given")
        return self

    def to_template(self) -> dict[str, str]:
        """The message in the format of chat templates."""
        parts = self.content or ""
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        message = {"role": "system" if self.role == "developer" else self.role, "content": text}
        thinking = self.reasoning if self.reasoning_content is None else self.reasoning_content
        if thinking is not None and self.role == "assistant":
            message["reasoning_content"] = thinking
        return message


class ChatRequest(CommonRequest):
    """POST /v1/chat/completions."""

    others: ClassVar[Mapping[str, Rule]] = OF_CHAT
    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @model_validator(mode="after")
    def _pairs(self) -> "ChatRequest":
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs, got none; pass logprobs=true too")
        if self.thought_logprobs and not self.logprobs:
            raise ValueError("thought_logprobs needs logprobs, got none; pass logprobs=true too")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError(
                "max_tokens is the old name of max_completion_tokens, got both; pass one of them"
            )
        return self

    @property
    def new_tokens(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def told(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    def prompts(self) -> list[list[dict[str, str]]]:
        return [[message.to_template() for message in self.messages]]


Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
SEVERAL = Field(min_length=1, max_length=MOST_PROMPTS)


class CompletionRequest(CommonRequest):
    """POST /v1/completions: prompts without a template, as text or token ids."""

    others: ClassVar[Mapping[str, Rule]] = OF_TEXT
    prompt: str | Annotated[list[str], SEVERAL] | Ids | Annotated[list[Ids], SEVERAL]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None

    @property
    def new_tokens(self) -> int | None:
        return self.max_tokens

    @property
    def told(self) -> int | None:
        return self.logprobs

    def prompts(self) -> list[Any]:
        single = isinstance(self.prompt, str) or isinstance(self.prompt[0], int)
        return [self.prompt] if single else list(self.prompt)
