"""Answers of maths and of sentences, right and wrong."""

import pytest

from sparing.tasks.grading import grade_maths, grade_sentence
from tests.tasks.graded import GRADED

PAIRS = [(group, *pair) for group, pairs in GRADED.items() for pair in pairs]


@pytest.mark.parametrize(("group", "answer", "reference", "right"), PAIRS)
def test_answers_as_models_write_them(group, answer, reference, right):
    assert grade_maths(reference, answer) == right


def test_the_table_is_large_and_a_third_of_it_is_wrong():
    assert len(PAIRS) >= 200
    assert 0.3 < sum(not right for *_, right in PAIRS) / len(PAIRS) < 0.4
    assert len({pair[1:3] for pair in PAIRS}) == len(PAIRS)


@pytest.mark.parametrize("group", ["boxes", "fractions", "maths"])
def test_a_reference_is_its_own_answer(group):
    for _, reference, _ in GRADED[group]:
        assert grade_maths(reference, f"\\boxed{{{reference}}}"), reference


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("72", "72"),
        ("72", r"She sold $48 + 24 = 72$ clips. \boxed{72}"),
        ("72", "Altogether she sold 48 + 24 = 72 clips."),
        ("1000", "1,000"),
        ("5", "$5"),
        ("033", "33"),
        ("33", r"\boxed{033}"),
        ("0.5", r"\boxed{\frac{1}{2}}"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"\boxed{(3, \pi/2)}"),
        (r"\text{Evelyn}", r"\boxed{\text{Evelyn}}"),
    ],
)
def test_right_maths(reference, answer):
    assert grade_maths(reference, answer)


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("72", ""),
        ("72", "I do not know."),
        ("72", "27"),
        ("72", r"48 + 24 = 72, so \boxed{73}"),
        ("0", ""),
        (r"\frac{14}{3}", r"\boxed{\frac{3}{14}}"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"\boxed{(3, \pi)}"),
    ],
)
def test_wrong_maths(reference, answer):
    assert not grade_maths(reference, answer)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("Tom is a lempus.", True),
        ("tom is a lempus", True),
        ("Tom is a terpus. Every terpus is a lempus.\nTherefore, Tom is a lempus.\n", True),
        ("Tom is a scrompus.", False),
        ("Tom is a lempus. No: Tom is a scrompus.", False),
        ("Tom is a lempus or scrompus.", False),
        ("Tom is a lempusling.", False),
        ("", False),
    ],
)
def test_sentences(answer, right):
    assert grade_sentence("Tom is a lempus.", answer) == right
