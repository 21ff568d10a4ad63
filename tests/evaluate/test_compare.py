"""Two results, problem by problem."""

import json

import pytest

from sparing.errors import OptionError
from sparing.evaluate.compare import compare, pair_rows, read_pairs
from sparing.evaluate.statistics import paired_bootstrap


def rows(*solved, task="sums"):
    return [
        {"task": task, "id": i, "correct": c, "question": f"{i}?", "reference": str(i)}
        for i, c in enumerate(map(bool, solved), 1)
    ]


@pytest.fixture
def result(tmp_path):
    """Write rows as a result; gives its path."""

    def write(name, content, **more):
        path = tmp_path / name
        whole = content if isinstance(content, str) else json.dumps({"rows": content} | more)
        path.write_text(whole)
        return path

    return write


def test_b_minus_a_over_all_and_by_task(result):
    a = result("a", rows(1, 1, 0, 0) + rows(0, 0, task="legs"))
    b = result("b", [*reversed(rows(1, 0, 1, 1)), *rows(1, 1, task="legs")])
    found = compare(a, b)
    assert found["difference"] == pytest.approx(3 / 6)
    assert (found["low"], found["high"]) == paired_bootstrap([0, -1, 1, 1, 1, 1])
    assert (found["n"], found["only_a"], found["only_b"]) == (6, 1, 4)
    assert found["tasks"]["legs"]["difference"] == found["tasks"]["legs"]["low"] == 1
    assert found["tasks"]["sums"]["difference"] == 0.25
    back = compare(b, a)
    assert back["difference"] == -found["difference"]


def test_a_result_does_not_differ_from_itself(result):
    a = result("a", rows(1, 0, 1))
    found = compare(a, a)
    assert (found["difference"], found["low"], found["high"]) == (0, 0, 0)


def test_costs_are_paired_over_all_problems(result):
    tokens = [[100, 200, 300], [110, 190, 330]]
    a, b = (
        [
            row | {"new_tokens": t, "seconds": t / 100}
            for row, t in zip(rows(1, 0, 1), of, strict=True)
        ]
        for of in tokens
    )
    costs = compare(result("a", a), result("b", b))["costs"]
    assert list(costs) == ["new_tokens", "seconds"]
    low, high = paired_bootstrap([10, -10, 30])
    assert costs["new_tokens"] == {"a": 200, "b": 210, "difference": 10, "low": low, "high": high}
    assert costs["seconds"]["difference"] == pytest.approx(0.1)
    assert compare(result("a", a), result("b", rows(1, 0, 1)))["costs"] == {}


def test_settings_that_differ_and_other_models(result):
    print_ = {"model": "m", "memory.budget": None, "questions": "x", "thoughts": False}
    one = result("a", rows(1), fingerprint=print_, machine="here", threads=1)
    other = print_ | {"memory.budget": 0.5, "questions": "y", "thoughts": True}
    two = result("b", rows(0), fingerprint=other, machine="here", threads=2)
    found = compare(one, two)
    assert found["settings"] == {"memory.budget": [None, 0.5], "threads": [1, 2]}
    assert not found["other_model"]
    three = result("c", rows(0), fingerprint=print_ | {"model": "n"})
    assert compare(one, three)["other_model"]


def test_problems_that_one_alone_solved_with_both_answers(result):
    a, b = ([r | {"answer": f"{name}{r['id']}"} for r in rows(*solved)]
            for name, solved in (("a", (1, 1, 0, 0)), ("b", (1, 0, 1, 0))))  # fmt: skip
    files = result("a", a), result("b", b)
    assert compare(*files)["texts"] == []
    first, second = compare(*files, texts=9)["texts"]
    assert first == {"task": "sums", "id": 2, "question": "2?", "reference": "2", "solved": "a",
                     "answer_a": "a2", "answer_b": "b2"}  # fmt: skip
    assert (second["id"], second["solved"]) == (3, "b")
    assert compare(*files, texts=1)["texts"] == [first]
    pairs = pair_rows(read_pairs(*files)[2])
    assert [(row["correct_a"], row["answer_b"]) for row in pairs] == [
        (True, "b1"), (True, "b2"), (False, "b3"), (False, "b4"),
    ]  # fmt: skip


SAME = rows(1, 0, 1)
APART = {
    "fewer": (SAME, rows(1, 0), r"got sums 3 in \S*a \(3 rows\) and not in \S*b \(2\)"),
    "more": (rows(1, 0), SAME, r"got sums 3 in \S*b \(3 rows\) and not in \S*a \(2\)"),
    "task": (SAME, rows(1, 0, 1, task="legs"), "got sums 1 in"),
    "question": (SAME, [r | {"question": "x"} for r in SAME], "another question for sums 1"),
    "reference": (SAME, [r | {"reference": "x"} for r in SAME], "another reference for sums 1"),
    "twice": (SAME, SAME + SAME, "b must be the --json of a finished"),
    "none": (SAME, [], "rows that are missing"),
    "no rows": (SAME, "{}", "b must be the --json .* got: no field 'rows'"),
    "no JSON": ("hello", SAME, "a must be the --json"),
    "bench": (SAME, [{"name": "x", "value": 1}], "b must be the --json"),
}


@pytest.mark.parametrize(("a", "b", "said"), APART.values(), ids=APART)
def test_what_does_not_pair(result, a, b, said):
    with pytest.raises(OptionError, match=said) as error:
        compare(result("a", a), result("b", b))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(result, tmp_path):
    with pytest.raises(OptionError, match="missing must be the --json"):
        compare(result("a", SAME), tmp_path / "missing")
