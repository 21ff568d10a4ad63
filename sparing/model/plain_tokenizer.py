"""A tokenizer without the import of transformers, which takes longer than a short answer.

It supports files with no setting beyond ``NEUTRAL``, and gives exactly the tokens of transformers.
Other methods, and templates with functions of transformers, load transformers' tokenizer.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from sparing.files import read_json

CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")
NEUTRAL = {  # fields of tokenizer_config.json that change no token
    "backend",
    "extra_special_tokens",
    "is_local",
    "local_files_only",
    "model_max_length",
    "tokenizer_class",
    *ROLES,
}
MISTRAL = 100_000  # in larger vocabularies transformers may correct Mistral's regular expression
BEYOND = re.compile(  # names in a template that are defined by transformers
    r"generation\s*-?%|tojson|raise_exception|strftime_now|namespace|dict\(|tools|documents"
)


class PlainTokenizer:
    """``backend_tokenizer`` with the methods of a transformers tokenizer.

    ``roles``: special tokens by name, such as ``eos_token``
    ``whole``: makes the transformers tokenizer
    """

    is_fast = True

    def __init__(
        self,
        backend: Tokenizer,
        roles: Mapping[str, str],
        template: str | None,
        whole: Callable[[], Any],
    ) -> None:
        self.backend_tokenizer, self.chat_template = backend, template
        self._roles, self._make_whole = dict(roles), whole

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._roles.get(name) if name in ROLES else getattr(self._whole, name)

    def __len__(self) -> int:
        return self.backend_tokenizer.get_vocab_size(with_added_tokens=True)

    @property
    def eos_token_id(self) -> int | None:
        token = self._roles.get("eos_token")
        return self.backend_tokenizer.token_to_id(token) if token else None

    def get_vocab(self) -> dict[str, int]:
        return self.backend_tokenizer.get_vocab(with_added_tokens=True)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, ids: Any, skip_special_tokens: bool = False, **more: Any) -> Any:
        if more or not isinstance(ids, list | tuple) or any(type(id_) is not int for id_ in ids):
            return self._whole.decode(ids, skip_special_tokens=skip_special_tokens, **more)
        return self.backend_tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> Any:
        """The messages as text (with ``tokenize=False``)."""
        given = {"tools": None, "documents": None, "add_generation_prompt": False, **self._roles}
        given |= options
        if given.pop("tokenize", True) or not self._template or not plain(messages, options):
            return self._whole.apply_chat_template(messages, **options)
        return self._template.render(messages=[dict(message) for message in messages], **given)

    @cached_property
    def _whole(self) -> Any:
        return self._make_whole()

    @cached_property
    def _template(self) -> Any:
        """The template, compiled as in transformers; None if it needs more than jinja."""
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        if not self.chat_template or BEYOND.search(self.chat_template):
            return None
        sandbox = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        return sandbox.from_string(self.chat_template)


def plain(messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> bool:
    """Whether all values are plain strings, numbers and flags; transformers handles others."""
    texts = [value for message in messages for value in message.values()]
    return (
        bool(messages)
        and all(message.keys() == {"role", "content"} for message in messages)
        and all(type(text) is str for text in texts)
        and all(type(value) in (bool, int, str) for value in options.values())
    )


def plain_tokenizer(directory: Path, whole: Callable[[], Any]) -> PlainTokenizer | None:
    """The tokenizer of a Hugging Face directory; None if only transformers can make it."""
    config = read_json(directory / "tokenizer_config.json")
    if config.pop("clean_up_tokenization_spaces", None) is not False or config.keys() - NEUTRAL:
        return None
    if config.get("tokenizer_class") not in CLASSES:
        return None
    if read_json(directory / "config.json").get("model_type") != "llama":
        return None  # for other families transformers may use a special class
    template = directory / "chat_template.jinja"
    if (directory / "additional_chat_templates").exists():
        return None
    roles = {role: config[role] for role in ROLES if config.get(role) is not None}
    extra = config.get("extra_special_tokens") or []
    try:
        backend = Tokenizer.from_file(str(directory / "tokenizer.json"))
    except Exception:  # tokenizers raises bare Exceptions; transformers' error is clearer
        return None
    if not isinstance(extra, list) or not added_as_special(backend, [*roles.values(), *extra]):
        return None
    if backend.truncation or backend.padding or backend.get_vocab_size() > MISTRAL:
        return None
    text = template.read_text() if template.exists() else None
    return PlainTokenizer(backend, roles, text, whole)


def added_as_special(backend: Tokenizer, tokens: Sequence[Any]) -> bool:
    """Whether the backend already has all ``tokens`` as plain special tokens.

    Then transformers, which adds them again, does not change it.
    """
    known = {
        str(token.content)
        for token in backend.get_added_tokens_decoder().values()
        if token.special
        and not (token.normalized or token.lstrip or token.rstrip)
        and not token.single_word
    }
    return all(isinstance(token, str) and token in known for token in tokens)
