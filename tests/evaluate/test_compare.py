"""Two results, problem by problem."""

import json

import pytest

from sparing.errors import OptionError
from sparing.evaluate.compare import compare
from sparing.evaluate.statistics import paired_bootstrap


def rows(*solved, task="sums"):
    return [
        {"task": task, "id": i, "correct": c, "question": f"{i}?", "reference": str(i)}
        for i, c in enumerate(map(bool, solved), 1)
    ]


@pytest.fixture
def result(tmp_path):
    """Write rows as a result; gives its path."""

    def write(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps({"rows": content}))
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


SAME = rows(1, 0, 1)
APART = {
    "fewer": (SAME, rows(1, 0), r"got sums 3 in \S*a \(3 rows\) and not in \S*b \(2\)"),
    "more": (rows(1, 0), SAME, r"got sums 3 in \S*b \(3 rows\) and not in \S*a \(2\)"),
    "task": (SAME, rows(1, 0, 1, task="legs"), "got sums 1 in"),
    "question": (SAME, [r | {"question": "x"} for r in SAME], "another question for sums 1"),
    "reference": (SAME, [r | {"reference": "x"} for r in SAME], "another reference for sums 1"),
    "twice": (SAME, SAME + SAME, "b must be the --json of a finished"),
    "none": (SAME, [], "rows that are missing"),
    "no rows": (SAME, "{}", "b must be the --json"),
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
