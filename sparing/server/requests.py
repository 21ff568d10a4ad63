"""The bodies of requests. Every field is checked, none is ignored."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sparing.options import Depth, Latent, Memory, Sampling

MOST_CHOICES, MOST_PROMPTS = 16, 64


class Body(BaseModel):
    """A body without unknown fields and without conversions between types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SparingOptions(Body):
    """Sparing's own options, as in Python.

    ``memory``, ``depth``, ``latent``: the savings
    ``sampling``: sampling options beyond OpenAI's fields
    ``no_think``: ask the chat template for an answer without thinking
    """

    memory: Memory | None = None
    depth: Depth | None = None
    latent: Latent | None = None
    sampling: Sampling | None = None
    no_think: bool = False


class StreamOptions(Body):
    """``include_usage``: add a last chunk with the numbers of tokens."""

    include_usage: bool = False


class CommonRequest(Body):
    """The common fields of both kinds of requests."""

    model: str
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] = 1
    stop: str | list[str] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
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
            "seed": self.seed,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_new_tokens": self.new_tokens,
            "logprobs": self.told,
        }
        return {name: value for name, value in values.items() if value is not None}


class TextPart(Body):
    type: Literal["text"]
    text: str


class Message(Body):
    """A turn. ``reasoning_content``: an assistant's thinking, for templates with that field."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    reasoning_content: str | None = None

    @model_validator(mode="after")
    def _thinks(self) -> "Message":
        if self.reasoning_content is not None and self.role != "assistant":
            raise ValueError(f"reasoning_content belongs to an assistant, got role {self.role}")
        return self

    def to_template(self) -> dict[str, str]:
        """The message in the format of chat templates."""
        parts = self.content
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        message = {"role": "system" if self.role == "developer" else self.role, "content": text}
        if self.reasoning_content is not None:
            message["reasoning_content"] = self.reasoning_content
        return message


class ChatRequest(CommonRequest):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @model_validator(mode="after")
    def _pairs(self) -> "ChatRequest":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs, got none; pass logprobs=true too")
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
