"""Writers of a run in OpenAI's format, whole or in chunks."""

from collections.abc import Iterator
from typing import Any, Generic, Literal, TypeVar

from sparing.model.token_bytes import TokenBytes
from sparing.server.logprobs import ChatTokens, TextTokens
from sparing.server.requests import CommonRequest
from sparing.server.responses import (
    Answer,
    ChatChoice,
    ChatCompletion,
    ChatLogprobs,
    Completion,
    Spared,
    TextChoice,
    TokenDetails,
    Usage,
)
from sparing.server.runs import Choice, LiveRun

FINISH = {"stop": "stop", "length": "length", "budget": "length", "context": "length"}
T = TypeVar("T", ChatTokens, TextTokens)


class ResponseWriter(Generic[T]):
    """Writes a run.

    ``asked``: its request
    ``tokens``: the bytes of the model's tokens
    ``model``: its name
    """

    body: type[ChatCompletion] | type[Completion]
    chunk_object: str

    def __init__(self, run: LiveRun, asked: CommonRequest, tokens: TokenBytes, model: str) -> None:
        self.run, self.asked, self.tokens, self.model = run, asked, tokens, model
        self._new: list[T] = [self._tokens(choice) for choice in run.choices]
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
            for fields in self._deltas(choice):
                yield self._chunk(choice, fields)
            if choice.done:
                self._ended.add(choice.index)
                if choice.done.finish_reason in FINISH:
                    yield self._chunk(choice, self._closing(), ends=True)

    def last(self) -> Iterator[dict[str, Any]]:
        """The last chunks."""
        if self.asked.usage_too:
            yield self._head() | {"choices": [], "usage": self.usage().model_dump()}

    def usage(self) -> Usage:
        """The numbers of tokens; a prompt counts once for all its choices."""
        choices = self.run.choices
        prompt = sum(len(choice.request.prompt.ids) for choice in choices[:: self.asked.n])
        new = sum(choice.stats.new_tokens for choice in choices)
        thought = sum(choice.stats.thinking_tokens for choice in choices)
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=new,
            total_tokens=prompt + new,
            completion_tokens_details=TokenDetails(reasoning_tokens=thought),
        )

    def _choice(self, choice: Choice) -> Any:
        """A finished choice."""
        raise NotImplementedError

    def _tokens(self, choice: Choice) -> T:
        """The tokens of a choice, for their logprobs."""
        raise NotImplementedError

    def _deltas(self, choice: Choice) -> Iterator[dict[str, Any]]:
        """What is new in a choice."""
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


class ChatWriter(ResponseWriter[ChatTokens]):
    """Thoughts in ``reasoning_content`` and ``reasoning``, answers in ``content``.

    A delta has text in one of both, and null in the other: many clients look at the first only.
    """

    body, chunk_object = ChatCompletion, "chat.completion.chunk"

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._told = [(0, 0) for _ in self.run.choices]  # characters of thought and answer

    def _choice(self, choice: Choice) -> ChatChoice:
        thinking, answer = choice.parts
        said = thinking or None
        return ChatChoice(
            index=choice.index,
            message=Answer(content=answer, reasoning_content=said, reasoning=said),
            logprobs=self._new[choice.index].news(),
            finish_reason=finish_reason(choice),
            sparing=spared(choice),
        )

    def opening(self) -> Iterator[dict[str, Any]]:
        for choice in self.run.choices:
            fields = delta(role="assistant")
            yield self._chunk(choice, fields)

    def _tokens(self, choice: Choice) -> ChatTokens:
        return ChatTokens(choice, self.tokens, thoughts=self.asked.thought_logprobs)

    def _deltas(self, choice: Choice) -> Iterator[dict[str, Any]]:
        thinking, answer = choice.parts
        thought, said = self._told[choice.index]
        self._told[choice.index] = len(thinking), len(answer)
        thinking, answer = thinking[thought:], answer[said:]
        found = self._new[choice.index].news()
        thoughts = found and found.reasoning_content
        if thinking or thoughts:
            told = found and found.model_copy(update={"content": []})
            yield delta(told if thoughts else None, reasoning=thinking)
        if answer or (found and found.content):
            told = found and found.model_copy(update={"reasoning_content": thoughts and []})
            yield delta(told if told and told.content else None, content=answer)

    def _closing(self) -> dict[str, Any]:
        return delta()


def delta(
    logprobs: ChatLogprobs | None = None,
    *,
    content: str | None = None,
    reasoning: str | None = None,
    **more: str,
) -> dict[str, Any]:
    """The fields of a chunk: text under every name that clients read, else null."""
    text = {"content": content, "reasoning_content": reasoning, "reasoning": reasoning}
    return {"delta": more | text, "logprobs": logprobs and logprobs.model_dump()}


class TextWriter(ResponseWriter[TextTokens]):
    """All generated text, thoughts and markers included."""

    body, chunk_object = Completion, "text_completion"

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._told = [0 for _ in self.run.choices]  # characters

    def _choice(self, choice: Choice) -> TextChoice:
        return TextChoice(
            index=choice.index,
            text=choice.text,
            logprobs=self._new[choice.index].news(),
            finish_reason=finish_reason(choice),
            sparing=spared(choice),
        )

    def _tokens(self, choice: Choice) -> TextTokens:
        return TextTokens(choice, self.tokens)

    def _deltas(self, choice: Choice) -> Iterator[dict[str, Any]]:
        text = choice.text[self._told[choice.index] :]
        self._told[choice.index] = len(choice.text)
        found = self._new[choice.index].news()
        logprobs = found if found and found.tokens else None
        if text or logprobs:
            yield {"text": text, "logprobs": logprobs and logprobs.model_dump()}

    def _closing(self) -> dict[str, Any]:
        return {"text": "", "logprobs": None}


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
