"""Response bodies in OpenAI's format, with Sparing's own fields."""

from typing import Any, Literal

from pydantic import BaseModel


class TopLogprob(BaseModel):
    """A token. ``bytes``: its own, also where they are only a part of a character."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    """Logprobs of tokens, in two lists.

    ``content``: of the content, to the byte: its first and its last token may be cut
    ``reasoning_content``: of all tokens of the thought, markers included; None unless asked for
    """

    content: list[TokenLogprob]
    reasoning_content: list[TokenLogprob] | None
    refusal: None = None


class TextLogprobs(BaseModel):
    """``text_offset``: where in the text each token begins, or its character if it is a part of
    one; special tokens have no text there."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class Spared(BaseModel):
    """Sparing's own fields of a choice.

    ``finish_reason``: the engine's
    ``seed``: repeats the choice
    ``notice``: a warning about the answer, for a question outside of the model's scope
    ``stats``: the engine's
    """

    finish_reason: str
    seed: int
    notice: str | None
    stats: dict[str, Any]


class Answer(BaseModel):
    """A message. ``reasoning``: the same as ``reasoning_content``, a newer name."""

    role: Literal["assistant"] = "assistant"
    content: str
    reasoning_content: str | None
    reasoning: str | None


class ChatChoice(BaseModel):
    index: int
    message: Answer
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"]
    sparing: Spared


class TextChoice(BaseModel):
    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"]
    sparing: Spared


class TokenDetails(BaseModel):
    reasoning_tokens: int


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    completion_tokens_details: TokenDetails


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class Completion(BaseModel):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage
