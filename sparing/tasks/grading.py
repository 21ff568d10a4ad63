"""Grade an answer by its reference answer alone: maths, and sentences."""

import re

from sparing.errors import OptionError


def grade_maths(reference: str, answer: str) -> bool:
    """Whether math-verify finds the reference's value: in LaTeX or plain, boxed or last."""
    check_maths()
    from math_verify import parse, verify

    return bool(verify(parse(f"\\boxed{{{reference}}}"), parse(answer)))


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
