"""What the writers think: graded by reasoning-gym, and read step by step."""

import re
from calendar import monthrange
from datetime import date, timedelta
from random import Random
from string import ascii_uppercase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reasoning_gym.arithmetic.leg_counting import ANIMALS

from sparing.model.markers import THINK, THINK_END
from sparing.pocket.corpus import WRITERS
from sparing.pocket.traces import arithmetic, countdown, times
from sparing.pocket.traces.trace import Trace
from sparing.tasks.families import FAMILIES, TRAINED
from sparing.tasks.gym import GymTask, entries
from sparing.tasks.problem import Problem
from sparing.tasks.splits import QuestionSet

ALL = [(family, level) for family in FAMILIES for level in TRAINED]
COUNTS = {"countdown": 30}  # its generator is slow
NONE = QuestionSet()


def drawn(family, level, n=None, seed=11):
    dataset, config = FAMILIES[family].dataset, FAMILIES[family].config(level)
    n = COUNTS.get(family, 100) if n is None else n
    return list(entries(dataset, config, "train", seed, n, NONE))


@pytest.mark.parametrize(("family", "level"), ALL)
def test_every_answer_gets_full_marks(family, level):
    task = GymTask(family, FAMILIES[family].dataset, FAMILIES[family].config(level))
    none = 0
    for at, entry in enumerate(drawn(family, level)):
        trace = WRITERS[family](entry, Random(at))
        if trace.answer == countdown.NONE:
            none += 1
            continue
        assert task.grade(Problem(family, at, "", "", entry), trace.answer), trace.thinking
        first, *pieces, last = trace.response()
        assert (first.text, first.taught) == (f"{THINK}\n", True)
        assert pieces == trace.pieces
        assert (last.text, last.taught) == (f"{THINK_END}\n\n{trace.answer}", True)
        assert THINK_END not in trace.thinking
    assert none <= (COUNTS[family] / 10 if family == "countdown" else 0)


@pytest.mark.parametrize("family", ["legs", "sums", "times"])
def test_slips_are_shown_taken_back_and_never_taught(family, monkeypatch):
    monkeypatch.setattr(arithmetic, "MISTAKES", 0.5)
    slips = 0
    for at, entry in enumerate(drawn(family, "practice", 20)):
        trace = WRITERS[family](entry, Random(at))
        for number, piece in enumerate(trace.pieces):
            if piece.taught:
                continue
            slips += 1
            left, _, wrong = piece.text.strip().partition("=")
            assert wrong != str(eval(left))
            assert trace.pieces[number + 1].text == " wait, no."
            assert trace.pieces[number + 2].text.startswith(f" {left}={eval(left)} ")
        for left, right in re.findall(r"(\d+(?:[-+]\d+)+)=(\d+)", taught(trace)):
            assert eval(left) == int(right) or left.startswith("0"), trace.thinking
    assert slips > 10


def taught(trace):
    return "".join(piece.text for piece in trace.pieces if piece.taught)


@pytest.mark.parametrize("level", TRAINED)
def test_legs_looks_up_each_product_once_and_in_order(level):
    """``C84`` is written after each animal; all but the last are recalled, the last first."""
    for at, entry in enumerate(drawn("legs", level)):
        animals = entry["metadata"]["animals"]
        products = [count * ANIMALS[animal] for animal, count in animals.items()]
        trace = WRITERS["legs"](entry, Random(at))
        recalled = [piece.text for piece in trace.pieces if piece.recall]
        assert recalled == [str(product) for product in reversed(products[:-1])]
        assert all(piece.taught for piece in trace.pieces if piece.recall)
        found, adding = trace.thinking.split("all\n")
        labels = ascii_uppercase[: len(products)]
        lines = re.findall(r"^([A-Z])(\d+)$", found, re.MULTILINE)
        assert lines == [(label, str(p)) for label, p in zip(labels, products, strict=True)]
        assert re.findall(r"^[A-Z]", adding, re.MULTILINE) == list(reversed(labels))


def test_legs_recalls_at_least_half_the_trace_later_at_the_hard_level():
    """The first product is wanted last: what a recency window cannot keep."""
    for at, entry in enumerate(drawn("legs", "practice", 20)):
        thinking = WRITERS["legs"](entry, Random(at)).thinking
        product = re.search(r"^A(\d+)$", thinking, re.MULTILINE)
        again = re.search(rf"^A{product[1]}, ", thinking, re.MULTILINE)
        assert again.start() - product.start() > len(thinking) / 2


@pytest.mark.parametrize("level", TRAINED)
def test_sums_carries_the_total_and_checks_its_last_digit(level):
    for at, entry in enumerate(drawn("sums", level)):
        terms = entry["metadata"]["expression"].replace(" - ", " + -").split(" + ")
        totals = [sum(map(int, terms[:n])) for n in range(2, len(terms) + 1)]
        *steps, check = WRITERS["sums"](entry, Random(at)).thinking.strip().split("\n")
        said = [re.search(r"(?:below, |so )(-?\d+)$", step)[1] for step in steps]
        assert said == [str(total) for total in totals]
        ends, digit = re.fullmatch(r"check .*=(\d) ends (\d) ok", check).groups()
        assert ends == str(totals[-1] % 10) == digit


def negative(entry):
    terms = entry["metadata"]["expression"].replace(" - ", " + -").split(" + ")
    return min(sum(map(int, terms[:n])) for n in range(1, len(terms) + 1)) < 0


def test_sums_goes_below_zero_and_comes_back():
    found = [entry for entry in drawn("sums", "practice") if negative(entry)]
    assert len(found) > 20
    assert any(int(entry["answer"]) > 0 for entry in found)


@pytest.mark.parametrize("level", TRAINED)
def test_countdown_tries_each_way_once_and_truly(level, monkeypatch):
    monkeypatch.setattr(countdown, "PASSED_BY", 0)
    for at, entry in enumerate(drawn("countdown", level, 15)):
        trace = WRITERS["countdown"](entry, Random(at))
        if trace.answer == countdown.NONE:
            continue
        for left, right in re.findall(r"(\d+[-+*/]\d+)=(\d+|big)", trace.thinking):
            value = eval(left)
            assert value == int(right) if right != "big" else value > countdown.LARGEST
        lines = trace.thinking.strip().split("\n")
        assert lines[0] == f"make {entry['metadata']['target']}"
        assert all(line.endswith(" no") for line in lines[1:-2])
        assert lines[-2].endswith(" yes")
        assert lines[-1] == f"so {trace.answer}={entry['metadata']['target']}"


@pytest.mark.parametrize("passed_by", [1, 2])
def test_countdown_that_passes_the_solution_by_begins_again_once(passed_by, monkeypatch):
    """Searches that slip wherever the solution is come to their end; the second one finds it, or
    there is none."""
    monkeypatch.setattr(countdown, "PASSED_BY", 1)
    kinds = set()
    for at, entry in enumerate(drawn("countdown", "standard", 15)):
        wanted = WRITERS["countdown"](entry, Draws([1.0], at))
        trace = WRITERS["countdown"](entry, Draws([0.0] * passed_by + [1.0], at))
        target = entry["metadata"]["target"]
        missed, again = trace.thinking.split("again\n")
        if passed_by == 1:
            assert f"make {target}\n{again}" == wanted.thinking
            assert trace.answer == wanted.answer
        else:
            assert again.endswith("no way\n")
            assert trace.answer == "none"
        assert not re.search(rf", .*={target} ", missed)
        slips = [piece.text for piece in trace.pieces if not piece.taught]
        kinds |= {slip[-1] for slip in slips} | {slip[0] for slip in slips}
        for left, right in re.findall(r"(\d+[-+*/]\d+)=(\d+)", taught(trace)):
            assert eval(left) == int(right)
        for slip in slips:
            left, _, wrong = slip.strip(" ,").rpartition("=")
            assert eval(left.split()[-1]) != int(wrong)
    assert {" ", ","} <= kinds  # slips of the second step and of the first


class Draws(Random):
    """Numbers that are given first, ``choice`` as ever."""

    getrandbits = Random.getrandbits

    def __init__(self, given, seed):
        super().__init__(seed)
        self.given = list(given)

    def random(self) -> float:
        return self.given.pop(0)


@pytest.mark.parametrize(
    ("numbers", "target", "said"),
    [
        ([27, 21, 14], 18, "27*14=big, 27/3=9 21/3=7 14/7=2 9*2=18 yes"),
        ([14, 27, 21], 18, "14*27=big, 14/7=2 21/7=3 27/3=9 2*9=18 yes"),
    ],
)
def test_countdown_cancels_before_it_multiplies(numbers, target, said, monkeypatch):
    monkeypatch.setattr(countdown, "PASSED_BY", 0)
    trace = countdown.write({"metadata": {"numbers": numbers, "target": target}}, Random(0))
    assert said in trace.thinking
    assert eval(trace.answer) == target


def test_countdown_without_a_way_gives_up(monkeypatch):
    monkeypatch.setattr(countdown, "PASSED_BY", 0)
    trace = countdown.write({"metadata": {"numbers": [1, 1, 1], "target": 99}}, Random(0))
    assert trace.thinking.count("again\n") == 1
    assert trace.thinking.endswith("no way\n")
    assert trace.answer == "none"


CLOCKS = {
    ("09:50", "10:05"): "00:15",
    ("00:00", "23:59"): "23:59",
    ("10:30", "12:30"): "02:00",
    ("07:07:07", "07:07:07"): "00:00:00",
    ("10:00:01", "11:00:00"): "00:59:59",  # borrowed twice, the minute from nothing
    ("10:59:59", "12:00:00"): "01:00:01",
    ("10:20:50", "11:20:40"): "00:59:50",
    ("00:00:59", "23:00:00"): "22:59:01",
}


@pytest.mark.parametrize(("times_of_day", "answer"), CLOCKS.items(), ids=str)
def test_times_within_a_day_borrow(times_of_day, answer):
    start, end = times_of_day
    entry = {"metadata": {"task_type": "time"}, "question": f"from {start} to {end}?"}
    trace = times.write(entry, Random(0))
    assert trace.answer == answer
    assert trace.thinking.count("borrow") == sum(
        low > high - lent for low, high, lent in borrowing(start, end)
    )
    for low, part, said in re.findall(r"(\d+)\+(\d+)=(\d+) for", trace.thinking):
        assert int(low) + int(part) == int(said)


def borrowing(start, end):
    """Units from the smallest, each with whether it has lent one."""
    lent = 0
    for low, high in zip(start.split(":")[::-1], end.split(":")[::-1], strict=True):
        yield int(low), int(high), lent
        lent = int(int(high) - lent < int(low))


SECONDS = st.integers(0, 24 * 3600 - 1)


@settings(deadline=None)
@given(SECONDS, SECONDS)
def test_any_two_times_of_a_day(first, second):
    first, second = min(first, second), max(first, second)
    start, end, wanted = (
        f"{s // 3600:02d}:{s // 60 % 60:02d}:{s % 60:02d}" for s in (first, second, second - first)
    )
    entry = {"metadata": {"task_type": "time_seconds"}, "question": f"{start}, {end}"}
    assert times.write(entry, Random(0)).answer == wanted
    if first < second:
        entry["question"] = f"{end}, {start}"
        assert times.write(entry, Random(0)) is None  # past midnight


@settings(deadline=None)
@given(st.dates(date(1900, 1, 1), date(2998, 1, 1)), st.integers(0, 500), st.integers(0, 99))
def test_any_two_dates(start, days, seed):
    end = start + timedelta(days)
    trace = times.write(between(start, end), Random(seed))
    assert trace.answer == f"{days} days"
    for year, month, length in re.findall(r"(\d{4})-(\d\d) [A-Z][a-z]+ \D*(\d+)", trace.thinking):
        assert monthrange(int(year), int(month))[1] == int(length)


def between(start, end):
    metadata = {"task_type": "date", "start_time": f"{start} 00:00:00", "end_time": f"{end} 00:00"}
    return {"metadata": metadata, "question": ""}


@pytest.mark.parametrize(
    ("year", "days"), [(1900, 1), (2000, 2), (2023, 1), (2024, 2), (2100, 1), (2400, 2)]
)
def test_leap_years(year, days):
    trace = times.write(between(date(year, 2, 28), date(year, 3, 1)), Random(0))
    assert trace.answer == f"{days} days"
    assert ("no leap" in trace.thinking) == (days == 1)


@pytest.mark.parametrize("kind", ["time_ms", "datetime", "datetime_tz"])
def test_kinds_that_no_level_asks_for_are_left_out(kind):
    entry = {"metadata": {"task_type": kind}, "question": "10:00:00.001 to 10:00:01.000"}
    assert times.write(entry, Random(0)) is None


def test_a_trace_keeps_what_is_said_shown_and_recalled_apart():
    trace = Trace()
    trace.say("a")
    trace.slip("b")
    trace.recall("c")
    assert trace.thinking == "abc"
    assert [(p.text, p.taught, p.recall) for p in trace.pieces] == [
        ("a", True, False),
        ("b", False, False),
        ("c", True, True),
    ]
