"""Grade an answer by its reference answer alone.

Where the answer is a choice (A to J), a time of day, or words, these are compared. All else is
maths: Math-Verify compares it, after the rewriting of ``tasks/notation.py``.
"""

import re

from sparing.errors import OptionError
from sparing.tasks.notation import ANSWER, BOXED, WRAPPED, bare, parts, plain, stated, zeros

CHOICE = re.compile(r"\(?([A-J])(?:[).:](?:\s.*)?)?", re.DOTALL)
CLOCK = re.compile(r"(?<![\d:.])(\d{1,3}):([0-5]\d)(?::([0-5]\d))?(?![\d:])\s*([ap]\.?m\b)?", re.I)
OPPOSITES = ("yes|no", "true|false")
WORDS = re.compile(r"(?:yes|no|[^\W\d_][^\W\d_']{2,}[^\\=^_+*/<>{}]*)", re.IGNORECASE)
MEASURE = re.compile(
    r"[\d}](?:\\?[,;: ]|~)*(?:\\(?:text|mathrm|mbox)\s*\{\s*)?"
    r"([mcdk]?m|[mk]?g|t|m?[lL]|m?s|min|h|in|ft|yd|mi|oz|lb)s?\b[}\s]*(?:\^\{?\d\}?)?$"
)
DIGITS = 6  # of a value that must agree, after its leading zeros


def grade_maths(reference: str, answer: str) -> bool:
    """Whether the answer states the reference's value: in a box, behind ``####``, or last."""
    check_maths()
    wanted, said = plain(reference), stated(answer, parts(reference))
    if choice := CHOICE.fullmatch(bare(wanted)):
        letter = re.fullmatch(r"\(?([a-jA-J])\)?[.:]?", bare(said))
        return (letter[1].upper() if letter else last_of(said, "[A-J]")) == choice[1]
    if CLOCK.fullmatch(bare(wanted)) and CLOCK.search(said):
        return same_clock(bare(wanted), WRAPPED.sub(r"\1", said))
    for words_ in OPPOSITES:
        if re.fullmatch(words_, bare(wanted), re.IGNORECASE):
            return last_of(said.lower(), words_) == bare(wanted).lower()
    if WORDS.fullmatch(bare(wanted)):
        return same_words(bare(wanted), said)
    return same_unit(wanted, said) and same_value(wanted, said)


def same_value(wanted: str, said: str) -> bool:
    """Whether Math-Verify finds two values equal, to six digits where they are decimals."""
    from math_verify import parse, verify

    digits = DIGITS + max(zeros(wanted), zeros(said))
    values = parse(f"{BOXED}{wanted}}}"), parse(said)
    return bool(verify(*values, float_rounding=digits, allow_set_relation_comp=True))


def same_words(wanted: str, said: str) -> bool:
    """Whether a box holds these words alone, or else a text ends with them, or what follows
    "answer" does."""
    if said.startswith(BOXED):
        return words(bare(said)) == words(wanted)
    if said.startswith(ANSWER):
        said = re.split(r"[.;!\n]", said.removeprefix(ANSWER).strip())[0]
    return grade_sentence(wanted, bare(said))


def last_of(said: str, words_: str) -> str | None:
    """Which of some words (a pattern) a text says last as an answer: behind "answer", else in
    parentheses, as a sentence of its own, or at a sentence's beginning or end."""
    said = bare(said) if said.startswith(BOXED) else WRAPPED.sub(r"\1", said)
    word = rf"[(*$\s]*({words_})(?!\w)"
    whole = r"(?!\s+(?!(?:is|as|because|since)\b)[a-z])"  # A, not the article
    ends = r"(?=[)*$\s]*(?:[.,:;!)\n]|$|is\s+(?:the\s+)?(?:correct|right|best|answer)\b))"
    for pattern in (
        rf"(?i:\b(?:answer|option|choice)\b(?:\W*(?:is|was))?)\W*?{word}{whole}",
        rf"(?:^|[.!?:\n]|\b(?:is|was|choose|pick)\b){word}{ends}",
        rf"[(*]({words_})[)*]",
    ):
        if found := re.findall(pattern, said, re.MULTILINE):
            return str(found[-1])
    return None


def same_clock(wanted: str, said: str) -> bool:
    """Whether the last time that a text says is this one; seconds may be left out, and so may AM
    or PM on one side."""
    (*fields, half), (*others, other) = CLOCK.findall(wanted)[-1], CLOCK.findall(said)[-1]
    same = seconds(fields) == seconds(others) and not (half and other and half[0] != other[0])
    return same or seconds(fields, half) == seconds(others, other)


def seconds(fields: list[str], half: str = "") -> int:
    """Of a day; ``half``: am, pm or nothing."""
    hours, minutes, seconds_ = (int(each or 0) for each in fields)
    if half:
        hours = hours % 12 + 12 * half.lower().startswith("p")
    return (hours * 60 + minutes) * 60 + seconds_


def same_unit(wanted: str, said: str) -> bool:
    """False where both values end in a unit of measure, and in different ones."""
    ends = [MEASURE.search(text.rstrip(" .}$")) for text in (wanted, said)]
    return len({found[1] for found in ends if found}) < 2


def check_maths() -> None:
    """Raise OptionError if math-verify is not installed."""
    try:
        import math_verify  # noqa: F401
    except ImportError:
        raise OptionError(
            "grading maths needs math-verify, which is not installed; "
            "run: pip install 'sparing[eval]'"
        ) from None


def grade_sentence(reference: str, answer: str) -> bool:
    """Whether the answer's last sentence ends with the reference, without case and punctuation."""
    sentences = [words(s) for s in re.split(r"[.!?\n]+", answer)]
    said = next((s for s in reversed(sentences) if s), [])
    wanted = words(reference)
    return bool(wanted) and said[-len(wanted) :] == wanted


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
