"""The forms in which GSM8K, SVAMP, MATH500, AIME and ProsQA write their rows.

A form is told by the fields of a row, whatever their case.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sparing.errors import OptionError
from sparing.tasks.grading import grade_maths, grade_sentence
from sparing.tasks.problem import Problem

# What the model cards of DeepSeek-R1 and Qwen3 ask users to put behind a question of maths.
INSTRUCTION = r"Please reason step by step, and put your final answer within \boxed{}."


def text(value: Any) -> str:
    """A field's text; a whole number loses its point. Raises ValueError for anything else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"must be a text or a number, got {value!r:.60}")
    if not str(value).strip():
        raise ValueError("must be a text or a number, got an empty text")
    return str(value).strip()


def number(value: Any) -> str:
    """An answer that may come as 51.0, in quotes or without."""
    return text(value).removesuffix(".0")


def behind_hashes(value: Any) -> str:
    """GSM8K's answer: what stands behind ``####``, without thousands' commas."""
    _, mark, answer = text(value).rpartition("####")
    if not mark or not answer.strip():
        raise ValueError(f"must end in '#### ' and the answer, got {value!r:.60}")
    return answer.strip().replace(",", "")


def steps(value: Any) -> str:
    """ProsQA's steps, which are not asked for."""
    return str(value)


@dataclass(frozen=True)
class Form:
    """What the rows of a known data set look like, and how they are asked and graded.

    ``fields``: how each (lower case) is read; a reader raises ValueError saying what must hold.
    ``asked``: the fields that make the question.
    """

    name: str
    fields: Mapping[str, Callable[[Any], str]]
    asked: tuple[str, ...]
    maths: bool = True

    def problem(self, source: str, id_: int, row: Any) -> Problem:
        """Row ``id_`` of ``source``; raises OptionError naming a field that cannot be used."""
        given = lower(row)
        values: dict[str, str] = {}
        for field, read in self.fields.items():
            if field not in given:
                raise OptionError(
                    f"every row of {source} must have the field {field} ({self.name} form), "
                    f"row {id_} has not; mend or remove it"
                )
            try:
                values[field] = read(given[field])
            except ValueError as error:
                raise OptionError(
                    f"in {source}, row {id_}, {field} {error}; mend or remove the row"
                ) from None
        question = " ".join(values[field] for field in self.asked)
        if self.maths:
            question = f"{question}\n{INSTRUCTION}"
        return Problem(source, id_, question, values["answer"])

    def grade(self, reference: str, answer: str) -> bool:
        return (grade_maths if self.maths else grade_sentence)(reference, answer)


# A row is of the first form whose fields it has.
FORMS = (
    Form("SVAMP", {"body": text, "question": text, "answer": number}, ("body", "question")),
    Form("ProsQA", {"question": text, "steps": steps, "answer": text}, ("question",), maths=False),
    Form("GSM8K", {"question": text, "answer": behind_hashes}, ("question",)),
    Form("MATH500", {"problem": text, "solution": text, "answer": text}, ("problem",)),
    Form("AIME", {"problem": text, "answer": text}, ("problem",)),
)


def find_form(source: str, row: Any) -> Form:
    """The form of a row, by its fields; raises OptionError that lists the known ones."""
    given = lower(row)
    for form in FORMS:
        if given.keys() >= form.fields.keys():
            return form
    known = "; ".join(f"{form.name}: {', '.join(form.fields)}" for form in FORMS)
    raise OptionError(
        f"rows of {source} must have the fields of a known form ({known}), "
        f"got {', '.join(sorted(given)) or 'no fields'}; rename its fields"
    )


def lower(row: Any) -> dict[str, Any]:
    """A row's fields in lower case; none where it is no object."""
    return {str(f).lower(): value for f, value in row.items()} if isinstance(row, Mapping) else {}
