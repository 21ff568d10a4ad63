"""The row formats of GSM8K, SVAMP, MATH500, AIME and ProsQA, and any question with its answer.

A row's form follows from the names of its fields, upper or lower case.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparing.errors import OptionError
from sparing.tasks.choices import CHOICES, letter, lettered, options
from sparing.tasks.grading import grade_maths, grade_sentence
from sparing.tasks.notation import boxes
from sparing.tasks.problem import Problem

# Recommended behind a question of maths by the model cards of DeepSeek-R1 and Qwen3.
INSTRUCTION = r"Please reason step by step, and put your final answer within \boxed{}."


def text(value: Any) -> str:
    """A field's text; a whole number loses its point. Raises ValueError for other types."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"must be a string or a number, got {value!r:.60}")
    if not str(value).strip():
        raise ValueError("must be a string or a number, got an empty string")
    return str(value).strip()


def number(value: Any) -> str:
    """A numeric answer, perhaps written as 51.0, with or without quotes."""
    return text(value).removesuffix(".0")


def behind_hashes(value: Any) -> str:
    """GSM8K's answer, behind ``####``, without thousands' commas."""
    _, mark, answer = text(value).rpartition("####")
    if not mark or not answer.strip():
        raise ValueError(f"must end in '#### ' and the answer, got {value!r:.60}")
    return answer.strip().replace(",", "")


def plain_answer(value: Any) -> str:
    """An answer: behind ``####``, else in its last box, else all of it."""
    given = text(value)
    if "####" in given:
        return behind_hashes(given)
    return next((box for box in reversed(boxes(given)) if box), given)


def steps(value: Any) -> str:
    """ProsQA's steps, which are not part of the question."""
    return str(value)


@dataclass(frozen=True)
class Form:
    """The row format of a known data set, with its questions and its grading.

    ``fields``: by name, in lower case, a reader; it raises ValueError for an invalid value
    ``asked``: the fields of the question
    ``maths``: whether answers are graded by ``grade_maths``, otherwise as sentences
    ``answer``: the field of the answer
    ``choices``: the field of the options, of multiple choice
    """

    name: str
    fields: Mapping[str, Callable[[Any], Any]]
    asked: tuple[str, ...]
    maths: bool = True
    answer: str = "answer"
    choices: str | None = None

    def problem(self, source: str, id_: int, row: Any) -> Problem:
        """The problem of row ``id_``; raises OptionError with the name of an unusable field."""
        given = lower(row)
        values: dict[str, Any] = {}
        for field, read in self.fields.items():
            if field not in given:
                raise OptionError(
                    f"every row of {source} must have the field {field} ({self.name} form), "
                    f"row {id_} has not; correct or remove it"
                )
            try:
                values[field] = read(given[field])
                if field == self.answer and self.choices:
                    values[field] = letter(given[field], *values[self.choices])
            except ValueError as error:
                raise OptionError(
                    f"in {source}, row {id_}, {field} {error}; correct or remove the row"
                ) from None
        question = " ".join(values[field] for field in self.asked)
        if self.choices:
            question = f"{question}\n{lettered(values[self.choices][0])}"
        if self.maths:
            question = f"{question}\n{INSTRUCTION}"
        return Problem(source, id_, question, values[self.answer])

    def grade(self, reference: str, answer: str) -> bool:
        return (grade_maths if self.maths else grade_sentence)(reference, answer)


# The first form with all its fields in a row is the row's form.
FORMS = (
    Form("SVAMP", {"body": text, "question": text, "answer": number}, ("body", "question")),
    Form("ProsQA", {"question": text, "steps": steps, "answer": text}, ("question",), maths=False),
    Form("GSM8K", {"question": text, "answer": behind_hashes}, ("question",)),
    Form("MATH500", {"problem": text, "solution": text, "answer": text}, ("problem",)),
    Form("AIME", {"problem": text, "answer": plain_answer}, ("problem",)),
)
QUESTIONS = ("question", "problem", "prompt", "instruction", "query", "input")
ANSWERS = (
    "answer",
    "final_answer",
    "answerkey",
    "target",
    "label",
    "output",
    "solution",
)  # the first one


@dataclass(frozen=True)
class Fields:
    """The fields of question and answer, where they are named; None: found by ``find_form``."""

    question: str | None = None
    answer: str | None = None


AUTO = Fields()


def find_form(source: str, row: Any, fields: Fields = AUTO) -> Form:
    """The form of a row, by its fields; raises OptionError where they leave it open."""
    given = lower(row)
    choices = next((name for name in CHOICES if name in given), None)
    if fields == AUTO and not choices:
        for form in FORMS:
            if given.keys() >= form.fields.keys() and not is_plain(form, given):
                return form
    question = named(source, "question", fields.question, QUESTIONS, given)
    answer = named(source, "answer", fields.answer, ANSWERS, given)
    readers = {question: text} | ({choices: options} if choices else {}) | {answer: plain_answer}
    return Form("plain", readers, (question,), answer=answer, choices=choices)


def is_plain(form: Form, given: Mapping[str, Any]) -> bool:
    """Whether a row with GSM8K's fields has an answer without ``####``."""
    return form.name == "GSM8K" and "####" not in str(given["answer"])


def named(
    source: str, what: str, wanted: str | None, known: Sequence[str], given: Mapping[str, Any]
) -> str:
    """The field of a question or an answer. Two fields that could be the question are refused."""
    names = [wanted.lower()] if wanted else known
    found = [name for name in names if name in given]
    if not found or (what == "question" and len(found) > 1):
        has = ", ".join(sorted(given)) or "no fields"
        rule = wanted or f"one of {', '.join(known)}"
        raise OptionError(
            f"rows of {source} must have the field {rule} as their {what}, got {has}; "
            f"name it with --{what}-field"
        )
    return found[0]


def lower(row: Any) -> dict[str, Any]:
    """A row's fields in lower case; no fields if it is no object."""
    return {str(f).lower(): value for f, value in row.items()} if isinstance(row, Mapping) else {}
