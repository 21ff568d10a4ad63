"""Questions without their boilerplate, and what makes two of them the same."""

import random
import re

import pytest

from sparing.tasks.families import FAMILIES, LEVELS
from sparing.tasks.gym import GymTask, entries
from sparing.tasks.splits import QuestionSet
from sparing.tasks.wording import BOILERPLATE, key, wording

ALL = [(family, level) for family in FAMILIES for level in LEVELS]


def drawn(family, level, n=12):
    dataset, config = FAMILIES[family].dataset, FAMILIES[family].config(level)
    return list(entries(dataset, config, "train", 5, n, QuestionSet()))


@pytest.mark.parametrize(("family", "level"), ALL)
def test_all_that_the_problem_says_stays(family, level):
    dataset = FAMILIES[family].dataset
    for entry in drawn(family, level):
        asked, whole = wording(dataset, entry), entry["question"]
        numbers = re.findall(r"\d+", whole)
        if family == "countdown":
            numbers = numbers[: -len("12345")]  # of the instructions, which are five
        assert re.findall(r"\d+", asked) == numbers
        kept = asked.removeprefix("What is ").removesuffix("?") if family == "sums" else asked
        assert kept[1:] in whole
        assert asked == asked.strip()
        assert asked[0].isupper()
        assert len(asked) <= len(whole)
        assert re.search(FAMILIES[family].question, asked)
        assert not re.search("Your task is|instructions|final answer", asked)


def test_how_each_family_is_asked():
    animals = {"cow": 2, "bee": 1}
    made = {
        "leg_counting": "Your task is to count how many legs there are in total when given a list "
        "of animals.\n\nNow, how many legs are there in total if you have 2 cows, 1 bee?\n",
        "countdown": "Calculate 24 using all of these numbers: 1, 2, 12.\nEach number may be used "
        "at most once.\n\nFinal answer format instructions:\n1. Provide 2 of 3.\n",
        "chain_sum": "State the final answer to the following arithmetic problem: 12 + 3 - 4 =",
        "time_intervals": "How long from 10:00 to 12:00? Answer in HH:MM.",
    }
    asked = {
        name: wording(name, {"question": question, "metadata": {"animals": animals}})
        for name, question in made.items()
    }
    assert asked == {
        "leg_counting": "How many legs are there in total if you have 2 cows, 1 bee?",
        "countdown": "Calculate 24 using all of these numbers: 1, 2, 12.",
        "chain_sum": "What is 12 + 3 - 4?",
        "time_intervals": "How long from 10:00 to 12:00? Answer in HH:MM.",
    }


@pytest.mark.parametrize("name", ["basic_arithmetic", "word_sorting", "knights_knaves"])
def test_other_data_sets_are_asked_word_for_word(name):
    assert name not in BOILERPLATE
    for problem in GymTask(name, name).problems(3, 0):
        assert problem.question == problem.entry["question"].strip()


@pytest.mark.parametrize(("family", "level"), ALL)
def test_different_problems_have_different_keys(family, level):
    dataset = FAMILIES[family].dataset
    found = drawn(family, level, 30)
    assert len({key(dataset, entry) for entry in found}) == 30
    others = {key(d, e) for d, e in (("other", entry) for entry in found)}
    assert not others & {key(dataset, entry) for entry in found}


@pytest.mark.parametrize("seed", range(5))
def test_the_same_animals_or_numbers_in_another_order_are_the_same_problem(seed):
    shuffled = random.Random(seed)
    animals = list({"cow": 2, "bee": 1, "fish": 12, "spider": 7}.items())
    numbers = [3, 25, 8, 8]
    expected = "leg_counting", {"question": "a", "metadata": {"animals": dict(animals)}}
    target = "countdown", {"question": "a", "metadata": {"numbers": numbers[:], "target": 10}}
    shuffled.shuffle(animals)
    shuffled.shuffle(numbers)
    reworded = {"question": "b", "metadata": {"animals": dict(animals)}}
    assert key("leg_counting", reworded) == key(*expected)
    found = {"question": "b", "metadata": {"numbers": numbers, "target": 10}}
    assert key("countdown", found) == key(*target)


def test_what_changes_the_answer_changes_the_key():
    keys = {
        key("leg_counting", {"metadata": {"animals": animals}})
        for animals in ({"cow": 2, "bee": 1}, {"cow": 1, "bee": 2}, {"cow": 2}, {"ant": 3})
    } | {
        key("countdown", {"metadata": {"numbers": numbers, "target": target}})
        for numbers, target in (([1, 2, 3], 6), ([1, 2, 3], 7), ([1, 2, 2], 6), ([12, 3], 6))
    } | {
        key("chain_sum", {"metadata": {"expression": expression}})
        for expression in ("1 + 2 + 3", "1 + 2 - 3", "12 + 3")
    }  # fmt: skip
    assert len(keys) == 4 + 4 + 3


def times(start, end, kind="time", format_="HH:MM"):
    metadata = {"start_time": start, "end_time": end, "task_type": kind, "expected_format": format_}
    return key("time_intervals", {"question": "in any words", "metadata": metadata})


def test_a_time_is_the_same_on_any_day_and_a_date_is_not():
    first = times("2026-11-23 10:05:00", "2026-11-23 12:30:00")
    assert first == times("2026-11-24 10:05:00", "2026-11-24 12:30:00")
    assert first != times("2026-11-23 10:05:00", "2026-11-23 12:31:00")
    seconds = times("2026-11-23 10:05:00", "2026-11-23 12:30:00", "time_seconds", "HH:MM:SS")
    assert first != seconds
    dates = ("2026-11-23 00:00:00", "2026-12-23 00:00:00"), ("2027-11-23 00:00:00", "2027-12-23")
    assert times(*dates[0], "date", "D days") != times(*dates[1], "date", "D days")


def test_a_sum_is_the_same_in_any_order():
    same = [
        key("chain_sum", {"metadata": {"expression": expression}})
        for expression in ("17 - 13 + 21", "21 - 13 + 17", "17 + 21 - 13")
    ]
    assert len(set(same)) == 1
