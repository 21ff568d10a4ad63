"""Whether a model marks its thoughts, from its files alone: no tokenizer is built."""

import json
from pathlib import Path
from typing import Any

from sparing.files import read_json
from sparing.model.gguf import mapped
from sparing.model.gguf_files import is_gguf
from sparing.model.gguf_header import read_header
from sparing.model.markers import known_markers


class Words:
    """What ``known_markers`` asks of a tokenizer."""

    def __init__(self, words: list[str], template: Any) -> None:
        self._words, self.chat_template = dict.fromkeys(words, 0), template

    def get_vocab(self) -> dict[str, int]:
        return self._words


def has_markers(path: Path) -> bool | None:
    """Whether a thought is marked; None where the files do not say."""
    words = gguf_words(path) if is_gguf(path) else folder_words(path)
    return None if words is None else known_markers(words) is not None


def gguf_words(path: Path) -> Words:
    with mapped(path) as data:
        metadata = read_header(data, path).metadata
    return Words(
        list(metadata.get("tokenizer.ggml.tokens", [])), metadata.get("tokenizer.chat_template")
    )


def folder_words(folder: Path) -> Words | None:
    """Of ``tokenizer.json``; other tokenizers are left to transformers."""
    try:
        found = json.loads((folder / "tokenizer.json").read_text())
        vocabulary = found["model"]["vocab"]
        pieces = list(vocabulary) if isinstance(vocabulary, dict) else [p[0] for p in vocabulary]
        added = [each["content"] for each in found.get("added_tokens", [])]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    file = folder / "chat_template.jinja"
    template = file.read_text() if file.is_file() else None
    template = template or read_json(folder / "tokenizer_config.json").get("chat_template")
    return Words([*pieces, *added], template)
