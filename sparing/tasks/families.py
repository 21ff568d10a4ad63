"""Pocket's families of questions: reasoning-gym data sets at three levels."""

from dataclasses import dataclass
from typing import Any

STANDARD, PRACTICE, HARD = "standard", "practice", "hard"
LEVELS = (STANDARD, HARD)  # of the evaluation
TRAINED = (STANDARD, PRACTICE)  # of the training
POCKET_TASKS = "pocket,pocket-hard"  # all tasks of the evaluation, by name


@dataclass(frozen=True)
class Family:
    """A reasoning-gym data set, and its settings at each level.

    Pocket was trained on ``standard`` and ``practice``. At ``hard`` it solves 50 to 80 % of the
    validation questions; for some families that level is beyond ``practice``.
    """

    dataset: str
    standard: dict[str, Any]
    practice: dict[str, Any]
    hard: dict[str, Any]
    about: str
    question: str  # a pattern of its questions, and of no others

    def config(self, level: str) -> dict[str, Any]:
        return {STANDARD: self.standard, PRACTICE: self.practice, HARD: self.hard}[level]


FAMILIES = {
    "legs": Family(
        "leg_counting",
        standard={"min_animals": 3, "max_animals": 5, "max_instances": 15},
        practice={"min_animals": 7, "max_animals": 9, "max_instances": 40},
        hard={"min_animals": 7, "max_animals": 9, "max_instances": 53},
        about="the legs of a list of animals: products at the start, their sum at the end",
        question=r"legs are there in total if you have \d+ [a-z ]+(?:, \d+ [a-z ]+){2,}\?",
    ),
    "countdown": Family(
        "countdown",
        standard={
            "min_numbers": 3,
            "max_numbers": 3,
            "max_value": 30,
            "min_target": 10,
            "max_target": 99,
        },
        practice={
            "min_numbers": 3,
            "max_numbers": 3,
            "max_value": 70,
            "min_target": 10,
            "max_target": 99,
        },
        hard={
            "min_numbers": 3,
            "max_numbers": 3,
            "max_value": 99,
            "min_target": 60,
            "max_target": 130,
        },
        about="make a target from three numbers: a search with dead ends",
        question=(
            r"(?:Find a way to make|Calculate) \d+ using all of these numbers: \d+, \d+, \d+\."
            r"|Using all the numbers \d+, \d+, \d+, create an expression that equals \d+"
        ),
    ),
    "sums": Family(
        "chain_sum",
        standard={"min_terms": 5, "max_terms": 8, "min_digits": 2, "max_digits": 3},
        practice={"min_terms": 8, "max_terms": 12, "min_digits": 4, "max_digits": 4},
        hard={"min_terms": 10, "max_terms": 13, "min_digits": 4, "max_digits": 4},
        about="a chain of additions and subtractions: a carried total",
        question=(
            r"What is (?:\d\d(?: [+-] \d\d){4,}|\d{3}(?: [+-] \d{3}){4,}"
            r"|\d{4}(?: [+-] \d{4}){4,})\?"
        ),
    ),
    "times": Family(
        "time_intervals",
        standard={"task_types": ["time", "time_seconds", "date"], "max_date_difference_days": 100},
        practice={"task_types": ["date"], "max_date_difference_days": 500},
        hard={"task_types": ["date"], "max_date_difference_days": 500},
        about="the time between two times of day or two dates, in plain English",
        # atomic groups: a long prompt of digits is read once
        question=r"(?s)\A(?>.*?\d)(?>.*? (?:to|and|at) )(?>.*?\d).*(?:in HH:MM|in D days)",
    ),
}
