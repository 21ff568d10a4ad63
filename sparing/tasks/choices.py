"""Multiple choice: options under letters, and an answer as a letter."""

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

CHOICES = ("choices", "options")  # the fields of a row, the first one


def options(value: Any) -> tuple[list[str], list[str]]:
    """Texts, and the labels that an answer may name them by: ``["red", "blue"]``, or
    ``{"text": [...], "label": [...]}``; raises ValueError for anything else."""
    texts = value.get("text") if isinstance(value, Mapping) else value
    labels = value.get("label") if isinstance(value, Mapping) else None
    if not isinstance(texts, Sequence) or isinstance(texts, str) or not texts:
        raise ValueError(f"must be a list of options, got {value!r:.60}")
    texts = [str(text).strip() for text in texts]
    letters = list(ascii_uppercase[: len(texts)])
    return texts, [str(label) for label in labels] if labels else letters


def lettered(texts: Sequence[str]) -> str:
    """A line an option."""
    return "\n".join(
        f"{letter}. {text}" for letter, text in zip(ascii_uppercase, texts, strict=False)
    )


def letter(answer: Any, texts: Sequence[str], labels: Sequence[str]) -> str:
    """The letter of an answer that is a label, a number from 0, or an option's text; raises
    ValueError for any other."""
    said = str(answer).strip()
    if isinstance(answer, int) and 0 <= answer < len(texts) and said not in labels:
        return ascii_uppercase[answer]
    for names in (labels, texts):
        if said in names:
            return ascii_uppercase[list(names).index(said)]
    raise ValueError(f"must name one of {len(texts)} options, got {answer!r:.60}")
