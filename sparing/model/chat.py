"""Prompts to token ids and back: chat template, think markers, end tokens, defaults."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

from sparing.errors import ModelError, OptionError, PromptError, reason
from sparing.model.checkpoint import inference_tokenizer
from sparing.model.generation_defaults import GenerationDefaults, read_defaults
from sparing.model.markers import Markers, check_markers, known_markers
from sparing.model.scope import Scope

STAND_IN = "a-message"  # in place of one
NO_TOKENS = "a prompt must have a token or more, got none; pass some text"
Message = Mapping[str, Any]
PromptLike = str | Sequence[int] | Sequence[Message]


@dataclass(frozen=True)
class Prompt:
    """An encoded prompt.

    ``thinking``: whether it ends inside a thought
    ``chat``: whether it is a conversation, through the chat template
    ``notice``: a warning about the answer, for a question outside of the model's scope
    """

    ids: list[int]
    thinking: bool = False
    chat: bool = False
    notice: str | None = None


class ChatFormat:
    """A model's tokenizer with its chat template, markers, defaults and scope.

    ``markers``: None for a model without marked thoughts
    """

    def __init__(
        self,
        tokenizer: Any,
        defaults: GenerationDefaults,
        markers: tuple[str, str] | None = None,
        scope: Scope | None = None,
    ) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError(
                "the tokenizer must be a fast one (tokenizer.json), "
                f"got {type(tokenizer).__name__}; convert it with transformers"
            )
        self.tokenizer, self.defaults, self.scope = tokenizer, defaults, scope
        self.markers = self._markers(markers or known_markers(tokenizer))

    @classmethod
    def load(
        cls, directory: Path, vocabulary: int, markers: tuple[str, str] | None = None
    ) -> "ChatFormat":
        """Read the chat format of a directory or a GGUF; ``markers`` overrides the model's own.

        Raises ModelError if the tokenizer is unusable or has ids beyond ``vocabulary``.
        """
        tokenizer = inference_tokenizer(directory)
        largest = max(tokenizer.get_vocab().values(), default=-1)
        if largest >= vocabulary:
            raise ModelError(
                f"the tokenizer's ids must lie below the model's vocabulary of {vocabulary}, got "
                f"{largest}; tokenizer and weights of {directory} do not belong together"
            )
        defaults, scope = read_defaults(directory, tokenizer), Scope.load(directory)
        return cls(tokenizer, defaults, markers, scope)

    @property
    def has_template(self) -> bool:
        return bool(self.tokenizer.chat_template)

    @property
    def can_skip_thinking(self) -> bool:
        """Whether the chat template uses ``enable_thinking``."""
        return "enable_thinking" in str(self.tokenizer.chat_template or "")

    def question(self, text: str, *, raw: bool = False) -> PromptLike:
        """A question as a prompt: a user message, or plain text if ``raw`` or without template."""
        if raw or not self.has_template:
            return text
        return [{"role": "user", "content": text}]

    def encode(
        self, prompt: PromptLike, template_options: Mapping[str, Any] | None = None
    ) -> Prompt:
        """Encode a string as it is, token ids, or chat messages through the model's template.

        ``template_options`` go to the template (``enable_thinking=False``). Raises PromptError for
        an empty prompt, ids outside the vocabulary, or messages refused by the template.
        """
        encoded = self._encode(prompt, template_options or {})
        if self.scope is None:
            return encoded
        return replace(encoded, notice=self.scope.outside(self._asked(prompt, encoded)))

    def _asked(self, prompt: PromptLike, encoded: Prompt) -> str:
        """The last question of a conversation, or all text of another prompt."""
        if encoded.chat:
            said = [m for m in prompt if isinstance(m, Mapping) and m.get("role") == "user"]
            return str(as_text(said[-1].get("content"))) if said else ""
        return self.tokenizer.decode(encoded.ids, skip_special_tokens=True)

    def _encode(self, prompt: PromptLike, template_options: Mapping[str, Any]) -> Prompt:
        if isinstance(prompt, str):
            return self._encode_text(prompt)
        if isinstance(prompt, Sequence) and not isinstance(prompt, bytes):
            if all(isinstance(token, Integral) for token in prompt):
                return self._encode_ids([int(token) for token in prompt])  # type: ignore[arg-type]
            if all(isinstance(message, Mapping) for message in prompt):
                return self._encode_messages(prompt, template_options)  # type: ignore[arg-type]
        raise PromptError(
            "a prompt must be a string, a list of token ids or a list of chat messages, "
            f"got {shortened(prompt)}"
        )

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def token_text(self, token: int) -> str:
        """The text of one token, special or not; U+FFFD for a part of a character."""
        return self.tokenizer.decode([token], skip_special_tokens=False)

    def is_bare(self, text: str) -> bool:
        """Whether a text lacks what the model's chat template would add to it."""
        added = self.tokenizer.backend_tokenizer.get_added_tokens_decoder().values()
        written = any(token.special and token.content in text for token in added)
        return self.has_template and not written

    def special_id(self, text: str) -> int | None:
        """The id of a special token, which leaves no text of its own; None for any other text."""
        token: int | None = self.tokenizer.backend_tokenizer.token_to_id(text)
        return None if token is None or self.decode([token]) else token

    def _encode_text(self, text: str) -> Prompt:
        bos = self.tokenizer.bos_token
        again = bool(bos) and text.startswith(bos)
        return Prompt(self._tokens(text, special=not again), self._left_open(text))

    def _tokens(self, text: str, *, special: bool) -> list[int]:
        """A text's token ids; raises PromptError if it has none, or is no valid Unicode."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            wrong = text[error.start]
            raise PromptError(f"a prompt must be valid Unicode, got {wrong!r} in it") from None
        ids = self.tokenizer.encode(text, add_special_tokens=special) if text else []
        if not ids:
            raise PromptError(NO_TOKENS)
        return ids

    def _encode_ids(self, ids: list[int]) -> Prompt:
        if not ids:
            raise PromptError(NO_TOKENS)
        size = len(self.tokenizer)
        wrong = [token for token in ids if not 0 <= token < size]
        if wrong:
            raise PromptError(f"token ids must lie in 0..{size - 1}, got {wrong[0]}")
        return Prompt(ids, self._left_open(self.tokenizer.decode(ids, skip_special_tokens=False)))

    def _encode_messages(self, messages: Sequence[Message], options: Mapping[str, Any]) -> Prompt:
        if not self.has_template:
            raise PromptError(
                "chat messages need a model with a chat template, got one without; pass a string"
            )
        for message in messages:
            if "role" not in message or not {"content", "tool_calls"} & set(message):
                raise PromptError(f"a message must have role and content, got {shortened(message)}")
        messages = [
            {**message, "content": as_text(message["content"])} if "content" in message else message
            for message in messages
        ]
        text = self._render(messages, options)
        opened = self._opens_a_thought(messages, options)
        return Prompt(self._tokens(text, special=False), opened, chat=True)

    def _render(self, messages: Sequence[Message], options: Mapping[str, Any]) -> str:
        try:
            return self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True, **options
            )
        except Exception as error:  # from jinja, or raised by the template on purpose
            raise PromptError(
                f"messages must be valid for the chat template, got: {reason(error)}"
            ) from None

    def _opens_a_thought(self, messages: Sequence[Message], options: Mapping[str, Any]) -> bool:
        """Whether what the template writes behind the last message (not a message) opens a thought.

        Another text in its place shows where that begins.
        """
        if self.markers is None:
            return False
        text = self._render([*messages[:-1], {**messages[-1], "content": STAND_IN}], options)
        return self._left_open(text.rpartition(STAND_IN)[2])

    def _left_open(self, text: str) -> bool:
        return self.markers is not None and self.markers.left_open(text)

    def _markers(self, pair: tuple[str, str] | None) -> Markers | None:
        if pair is None:
            return None
        check_markers(pair)
        ids = [self.tokenizer.encode(text, add_special_tokens=False) for text in pair]
        if not all(ids):
            raise OptionError(f"markers must have a token or more each, got {pair!r}")
        return Markers(pair[0], pair[1], tuple(ids[0]), tuple(ids[1]))


def as_text(content: Any) -> Any:
    """A message's content: its parts joined, "" for None; raises PromptError for an image."""
    if not isinstance(content, list):
        return "" if content is None else content
    for part in content:
        if (
            not isinstance(part, Mapping)
            or part.get("type", "text") != "text"
            or "text" not in part
        ):
            raise PromptError(
                f"a message's parts must be of text, got {shortened(part)}; leave it out"
            )
    return "".join(part["text"] for part in content)


def shortened(value: Any) -> str:
    """A value's repr, at most 80 characters of it."""
    shown = repr(value).replace("\n", " ")
    return shown if len(shown) <= 80 else shown[:80] + "..."
