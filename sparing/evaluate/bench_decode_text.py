"""The text of `sparing bench decode`: what fills a cache, and what perplexity is taken of."""

import json
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path

from sparing.api import Engine
from sparing.errors import OptionError, reason

WORDS = tuple(
    words.split()
    for words in (
        "small old quiet red happy strange young",
        "king farmer sailor painter teacher doctor child singer baker queen miner",
        "finds sells paints breaks hides carries sees buys loses steals mends wants keeps",
        "boat lamp horse book bridge garden letter stone clock river knife apple drum mirror "
        "chair window coat",
    )
)
WINDOW, TEXT_TOKENS = 512, 30_000  # of perplexity; each window from an empty cache


def read_text(path: Path) -> str:
    """Questions and solutions: the fields ``question`` and ``answer`` of a .jsonl file."""
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        text = "\n\n".join(f"{row['question']}\n{row['answer']}" for row in rows)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OptionError(
            f"--text must be a .jsonl file with question and answer in each line, got {path}: "
            f"{reason(error)}"
        ) from None
    if not text:
        raise OptionError(f"--text must hold a line or more, got none in {path}")
    return text


def windows(engine: Engine, text: str, tokens: int = TEXT_TOKENS) -> list[list[int]]:
    """The first ``tokens`` ids, cut into windows; a rest of one id has nothing to predict."""
    ids = encode(engine, text[: 16 * tokens])[:tokens]
    parts = [ids[at : at + WINDOW] for at in range(0, len(ids), WINDOW)]
    return [part for part in parts if len(part) > 1]


def distinct_ids(engine: Engine, wanted: int, text: str | None = None) -> list[int]:
    """The first ids of a text, by default of made-up sentences."""
    if text and len(ids := encode(engine, text[: 16 * wanted])) >= wanted:
        return ids[:wanted]
    made_up = "".join(islice(sentences(), wanted))
    return encode(engine, made_up)[:wanted]


def sentences() -> Iterator[str]:
    """None comes twice: the lists' lengths have no common divisor."""
    for turn in count():
        kind, who, does, what = (words[turn % len(words)] for words in WORDS)
        yield f"A {kind} {who} {does} a {what}. "


def encode(engine: Engine, text: str) -> list[int]:
    return engine.chat.tokenizer.encode(text, add_special_tokens=False)


def rows_of(ids: Sequence[int], rows: int, length: int) -> list[list[int]]:
    """Different prompts of one length."""
    return [list(ids[row * length : (row + 1) * length]) for row in range(rows)]
