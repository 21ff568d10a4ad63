"""Response bodies and chunks in OpenAI's format, with Sparing's own fields."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel

from sparing.engine.events import TokenEvent
from sparing.model.chat import ChatFormat
from sparing.server.runs import Choice, LiveRun

FINISH = {"stop": "stop", "length": "length", "budget": "length", "context": "length"}


class TopLogprob(BaseModel):
    """``bytes``: None for a part of a character."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    """Logprobs of every token, in two lists.

    ``content``: of the answer, end token included
    ``reasoning_content``: of the thoughts, markers included
    """

    content: list[TokenLogprob]
    reasoning_content: list[TokenLogprob]


class TextLogprobs(BaseModel):
    """``text_offset``: the offset of each token in the text."""

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
    role: Literal["assistant"] = "assistant"
    content: str
    reasoning_content: str | None


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


class ResponseWriter:
    """Writes a run in OpenAI's format, whole or in chunks.

    ``model``: its name
    ``n``: choices of each prompt
    ``usage_too``: add a last chunk with the numbers of tokens
    """

    body: type[ChatCompletion] | type[Completion]
    chunk_object: str

    def __init__(self, run: LiveRun, chat: ChatFormat, model: str, n: int, usage_too: bool) -> None:
        self.run, self.chat, self.model, self.n = run, chat, model, n
        self.usage_too = usage_too
        self._told = [self._nothing() for _ in run.choices]
        self._ended: set[int] = set()

    def whole(self) -> dict[str, Any]:
        """The body of a response without streaming."""
        body = self.body(
            id=self.run.id,
            created=self.run.created,
            model=self.model,
            choices=[self._choice(choice) for choice in self.run.choices],
            usage=self.usage(),
        )
        return body.model_dump()

    def opening(self) -> Iterator[dict[str, Any]]:
        """The first chunks, before any token."""
        return iter(())

    def news(self) -> Iterator[dict[str, Any]]:
        """Chunks with all new text; an interrupted choice has no last chunk."""
        for choice in self.run.choices:
            if choice.index in self._ended:
                continue
            if fields := self._delta(choice):
                yield self._chunk(choice, fields)
            if choice.done:
                self._ended.add(choice.index)
                if choice.done.finish_reason in FINISH:
                    yield self._chunk(choice, self._closing(), ends=True)

    def last(self) -> Iterator[dict[str, Any]]:
        """The last chunks."""
        if self.usage_too:
            yield self._head() | {"choices": [], "usage": self.usage().model_dump()}

    def usage(self) -> Usage:
        """The numbers of tokens; a prompt counts once for all its choices."""
        choices = self.run.choices
        prompt = sum(len(choice.request.prompt.ids) for choice in choices[:: self.n])
        new = sum(choice.stats.new_tokens for choice in choices)
        thought = sum(choice.stats.thinking_tokens for choice in choices)
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=new,
            total_tokens=prompt + new,
            completion_tokens_details=TokenDetails(
                reasoning_tokens=thought if self.chat.markers else 0
            ),
        )

    def _choice(self, choice: Choice) -> Any:
        """A finished choice."""
        raise NotImplementedError

    def _nothing(self) -> Any:
        """The state of a choice before the first chunk."""
        raise NotImplementedError

    def _delta(self, choice: Choice) -> dict[str, Any]:
        raise NotImplementedError

    def _closing(self) -> dict[str, Any]:
        raise NotImplementedError

    def _head(self) -> dict[str, Any]:
        run = self.run
        return {
            "id": run.id,
            "object": self.chunk_object,
            "created": run.created,
            "model": self.model,
        }

    def _chunk(
        self, choice: Choice, fields: dict[str, Any], *, ends: bool = False
    ) -> dict[str, Any]:
        reason = None
        if ends:
            fields = fields | {"sparing": spared(choice).model_dump()}
            reason = finish_reason(choice)
        fields = {"index": choice.index} | fields | {"finish_reason": reason}
        return self._head() | {"choices": [fields]}


class ChatWriter(ResponseWriter):
    """Thoughts in ``reasoning_content``, answers in ``content``."""

    body, chunk_object = ChatCompletion, "chat.completion.chunk"

    def _choice(self, choice: Choice) -> ChatChoice:
        thinking, answer = choice.parts
        return ChatChoice(
            index=choice.index,
            message=Answer(content=answer, reasoning_content=thinking or None),
            logprobs=self._logprobs(choice, choice.tokens),
            finish_reason=finish_reason(choice),
            sparing=spared(choice),
        )

    def opening(self) -> Iterator[dict[str, Any]]:
        for choice in self.run.choices:
            delta = {"role": "assistant", "content": ""}
            yield self._chunk(choice, {"delta": delta, "logprobs": None})

    def _nothing(self) -> tuple[int, int, int]:
        return 0, 0, 0

    def _delta(self, choice: Choice) -> dict[str, Any]:
        thinking, answer = choice.parts
        thought, said, tokens = self._told[choice.index]
        new = choice.tokens[tokens:]
        self._told[choice.index] = len(thinking), len(answer), len(choice.tokens)
        delta = {"reasoning_content": thinking[thought:], "content": answer[said:]}
        delta = {name: text for name, text in delta.items() if text}
        logprobs = self._logprobs(choice, new) if new else None
        if not delta and logprobs is None:
            return {}
        return {"delta": delta, "logprobs": logprobs and logprobs.model_dump()}

    def _closing(self) -> dict[str, Any]:
        return {"delta": {}, "logprobs": None}

    def _logprobs(self, choice: Choice, tokens: list[TokenEvent]) -> ChatLogprobs | None:
        if choice.request.sampler.logprobs is None:
            return None
        parts: dict[bool, list[TokenLogprob]] = {True: [], False: []}
        for event in tokens:
            thought = self.chat.markers is not None and event.kind == "thought"
            parts[thought].append(self._logprob(event))
        return ChatLogprobs(content=parts[False], reasoning_content=parts[True])

    def _logprob(self, event: TokenEvent) -> TokenLogprob:
        assert event.logprobs is not None
        top = [TopLogprob(**self._token(id_, p)) for id_, p in event.logprobs.top]
        return TokenLogprob(**self._token(event.id, event.logprobs.token), top_logprobs=top)

    def _token(self, id_: int, logprob: float) -> dict[str, Any]:
        text = self.chat.token_text(id_)
        whole = None if "\ufffd" in text else list(text.encode())
        return {"token": text, "logprob": logprob, "bytes": whole}


class TextWriter(ResponseWriter):
    """All generated text, thoughts and markers included."""

    body, chunk_object = Completion, "text_completion"

    def _choice(self, choice: Choice) -> TextChoice:
        return TextChoice(
            index=choice.index,
            text=choice.text,
            logprobs=self._logprobs(choice, choice.tokens, 0),
            finish_reason=finish_reason(choice),
            sparing=spared(choice),
        )

    def _nothing(self) -> tuple[int, int, int]:
        return 0, 0, 0

    def _delta(self, choice: Choice) -> dict[str, Any]:
        said, tokens, offset = self._told[choice.index]
        new = choice.tokens[tokens:]
        text, logprobs = choice.text[said:], self._logprobs(choice, new, offset) if new else None
        if logprobs is not None:
            offset += sum(map(len, logprobs.tokens))
        self._told[choice.index] = len(choice.text), len(choice.tokens), offset
        if not text and logprobs is None:
            return {}
        return {"text": text, "logprobs": logprobs and logprobs.model_dump()}

    def _closing(self) -> dict[str, Any]:
        return {"text": "", "logprobs": None}

    def _logprobs(
        self, choice: Choice, tokens: list[TokenEvent], offset: int
    ) -> TextLogprobs | None:
        if choice.request.sampler.logprobs is None:
            return None
        found = TextLogprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
        for event in tokens:
            assert event.logprobs is not None
            text = self.chat.token_text(event.id)
            found.tokens.append(text)
            found.token_logprobs.append(event.logprobs.token)
            top = [(self.chat.token_text(id_), p) for id_, p in event.logprobs.top]
            found.top_logprobs.append(dict(reversed(top)))  # of two with equal text the likelier
            found.text_offset.append(offset)
            offset += len(text)
        return found


def finish_reason(choice: Choice) -> Literal["stop", "length"]:
    """OpenAI's finish reason; every limit is a length."""
    assert choice.done is not None
    return FINISH[choice.done.finish_reason]  # type: ignore[return-value]


def spared(choice: Choice) -> Spared:
    """Sparing's own fields of an ended choice."""
    assert choice.done is not None
    return Spared(
        finish_reason=choice.done.finish_reason,
        seed=choice.request.sampler.seed,
        notice=choice.request.prompt.notice,
        stats=choice.stats.to_dict(),
    )
