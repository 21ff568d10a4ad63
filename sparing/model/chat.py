"""Prompts to token ids and back: chat template, think markers, end tokens, defaults."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import Any

from sparing.errors import ModelError, OptionError, PromptError, reason
from sparing.files import read_json
from sparing.model.checkpoint import inference_tokenizer, open_gguf
from sparing.model.gguf_files import is_gguf
from sparing.model.gguf_tokenizer import Vocabulary, gguf_sampling
from sparing.model.scope import Scope
from sparing.options import Sampling

# Start and end of a thought; the first pair in a model's vocabulary or template counts.
THINK, THINK_END = "<think>", "</think>"  # in most models, and in all models trained here
KNOWN_MARKERS = (
    (THINK, THINK_END),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),
)
MARKED = "{{# thinks between {} and {} #}}"  # a comment for a template; it renders to nothing
NO_TOKENS = "a prompt must have a token or more, got none; pass some text"
Message = Mapping[str, Any]
PromptLike = str | Sequence[int] | Sequence[Message]


@dataclass(frozen=True)
class Markers:
    """The start and end of a thought, each as text and as one or more token ids."""

    start: str
    end: str
    start_ids: tuple[int, ...]
    end_ids: tuple[int, ...]

    def left_open(self, text: str) -> bool:
        """Whether the text ends inside a thought."""
        return text.rfind(self.start) > text.rfind(self.end)

    def without_begun(self, part: str, thought: bool) -> str:
        """A part of the text without an end that may be the beginning of the next marker."""
        if thought and self.start.startswith(part.strip()):
            return ""
        marker = self.end if thought else self.start
        sizes = range(min(len(marker) - 1, len(part)), 0, -1)
        held = next((size for size in sizes if part.endswith(marker[:size])), 0)
        return part[: len(part) - held]


@dataclass(frozen=True)
class Prompt:
    """An encoded prompt.

    ``thinking``: whether it ends inside a thought
    ``notice``: a warning about the answer, for a question outside of the model's scope
    """

    ids: list[int]
    thinking: bool = False
    notice: str | None = None


@dataclass(frozen=True)
class GenerationDefaults:
    """A model's end tokens and default sampling, from ``generation_config.json`` or a GGUF."""

    end_ids: frozenset[int]
    sampling: dict[str, Any] = field(default_factory=dict)


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
        asked = self.tokenizer.decode(encoded.ids, skip_special_tokens=True)
        return replace(encoded, notice=self.scope.outside(asked))

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
        bare = self._render(messages, options, add_generation_prompt=False)
        text = self._render(messages, options, add_generation_prompt=True)
        return Prompt(self._tokens(text, special=False), self._opened_behind(bare, text))

    def _render(self, messages: Sequence[Message], options: Mapping[str, Any], **more: Any) -> str:
        try:
            return self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, **options, **more
            )
        except Exception as error:  # from jinja, or raised by the template on purpose
            raise PromptError(
                f"messages must be valid for the chat template, got: {reason(error)}"
            ) from None

    def _opened_behind(self, bare: str, text: str) -> bool:
        """Whether the template's generation prompt (not a message) opens a thought."""
        if self.markers is None:
            return False
        pairs = enumerate(zip(bare, text, strict=False))
        parted = next((at for at, (a, b) in pairs if a != b), min(len(bare), len(text)))
        return self._left_open(text[max(parted - len(self.markers.start) + 1, 0) :])

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


def known_markers(tokenizer: Any) -> tuple[str, str] | None:
    """The first known pair in the vocabulary, else in the template."""
    vocabulary = tokenizer.get_vocab()
    template = str(tokenizer.chat_template or "")
    for pair in KNOWN_MARKERS:
        if all(marker in vocabulary for marker in pair):
            return pair
    for pair in KNOWN_MARKERS:
        if pair[1] in template:
            return pair
    return None


def mark_thoughts(tokenizer: Any) -> None:
    """Note the think markers in the template of a model about to learn them, if it has none.

    The rendered text does not change; `known_markers` finds the pair at the next load.
    """
    if known_markers(tokenizer) is None and isinstance(tokenizer.chat_template, str):
        template = tokenizer.chat_template.removesuffix("\n")  # Jinja ignores the last newline
        tokenizer.chat_template = template + MARKED.format(THINK, THINK_END)


def check_markers(pair: Any) -> None:
    """Raise OptionError unless ``pair`` is the start and the end of a thought, or None."""
    two = isinstance(pair, tuple) and len(pair) == 2
    texts = two and all(isinstance(marker, str) and marker for marker in pair)
    if pair is not None and not (texts and pair[0] != pair[1]):
        raise OptionError(
            f"markers must be two different strings, a thought's start and end, got {pair!r}"
        )


def shortened(value: Any) -> str:
    """A value's repr, at most 80 characters of it."""
    shown = repr(value).replace("\n", " ")
    return shown if len(shown) <= 80 else shown[:80] + "..."


SAMPLED = ("top_k", "top_p", "min_p")


def read_defaults(path: Path, tokenizer: Any) -> GenerationDefaults:
    """End tokens and sampling of a checkpoint; ``generation_config.json`` may be missing."""
    if is_gguf(path):
        gguf, where = open_gguf(path), path
        ends, sampling = Vocabulary.of(gguf).end_ids(), gguf_sampling(gguf)
    else:
        where = path / "generation_config.json"
        generation = read_json(where)
        ends, sampling = end_ids(path, generation, tokenizer), generation_sampling(generation)
    try:
        Sampling(**sampling)
    except OptionError as error:
        raise ModelError(f"in {where} {error}; correct it") from None
    return GenerationDefaults(ends, sampling)


def end_ids(directory: Path, generation: Mapping[str, Any], tokenizer: Any) -> frozenset[int]:
    ends = as_ids(generation.get("eos_token_id"))
    if not ends:
        config = read_json(directory / "config.json")
        ends = as_ids(config.get("eos_token_id")) | as_ids(tokenizer.eos_token_id)
    return frozenset(ends)


def generation_sampling(generation: Mapping[str, Any]) -> dict[str, Any]:
    sampling: dict[str, Any] = {}
    if generation.get("do_sample"):
        given = generation.get("temperature")
        sampling["temperature"] = 1.0 if given is None else given
        sampling |= {name: generation[name] for name in SAMPLED if generation.get(name)}
    for name in ("repetition_penalty", "max_new_tokens"):
        if generation.get(name):
            sampling[name] = generation[name]
    return sampling


def as_ids(value: Any) -> set[int]:
    """End tokens from a config file: an id, a list of ids, or null."""
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(token, int) for token in ids):
        raise ModelError(f"eos_token_id must be a token id or a list of them, got {value!r}")
    return set(ids)
