"""Written arithmetic: every column that is taught is true, and every slip is taken back."""

import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparing.pocket.traces import arithmetic
from sparing.pocket.traces.arithmetic import add, multiply, subtract
from sparing.pocket.traces.trace import Trace

NUMBERS, SEEDS = st.integers(0, 99_999), st.integers(0, 2**32)
STATEMENT = re.compile(r"(\d+(?:[-+*]\d+)+)=(\d+)")
TAKEN_BACK = " wait, no."


def assert_written(trace, head, result):
    """The head, true columns, ``so`` and the result; slips false, shown, mended at once."""
    taught = "".join(piece.text for piece in trace.pieces if piece.taught)
    statements = STATEMENT.findall(taught)
    assert statements
    for left, right in statements:
        assert eval(left) == int(right), taught
    assert taught.startswith(head)
    assert taught.endswith((f"so {result}", f"={result}"))
    pairs = zip(trace.pieces, trace.pieces[1:], strict=False)
    for slip, after in [(piece, after) for piece, after in pairs if not piece.taught]:
        left, _, wrong = slip.text.strip().partition("=")
        assert after.text == TAKEN_BACK
        rest = "".join(piece.text for piece in trace.pieces[trace.pieces.index(after) + 1 :])
        assert rest.startswith(f" {left}={eval(left)} ")  # the same column, and right
        assert wrong != str(eval(left))
    assert trace.pieces[-1].taught


@pytest.fixture(params=[0.0, 1.0], ids=["no slips", "a slip in each"], scope="module")
def slips(request):
    usual = arithmetic.MISTAKES
    arithmetic.MISTAKES = request.param
    yield request.param
    arithmetic.MISTAKES = usual


@pytest.mark.usefixtures("slips")
class TestColumns:
    @settings(deadline=None)
    @given(NUMBERS, NUMBERS, SEEDS)
    def test_a_sum(self, a, b, seed):
        trace = Trace()
        assert add(trace, a, b, Random(seed)) == a + b
        assert_written(trace, f"{a}+{b}: ", a + b)

    @settings(deadline=None)
    @given(NUMBERS, NUMBERS, SEEDS)
    def test_a_difference(self, a, b, seed):
        a, b = max(a, b), min(a, b)
        trace = Trace()
        assert subtract(trace, a, b, Random(seed)) == a - b
        assert_written(trace, f"{a}-{b}: ", a - b)

    @settings(deadline=None)
    @given(st.integers(1, 99), st.integers(0, 14), SEEDS)
    def test_a_product(self, a, b, seed):
        trace = Trace()
        assert multiply(trace, a, b, Random(seed)) == a * b
        assert_written(trace, f"{a}*{b}", a * b)


@pytest.mark.parametrize("seed", range(40))
def test_slips_are_as_seldom_as_said_and_of_every_column(seed, slips):
    trace = Trace()
    add(trace, 1234, 5678, Random(seed))
    assert sum(not piece.taught for piece in trace.pieces) == slips


@settings(deadline=None)
@given(st.sampled_from([add, subtract]), st.integers(0, 99), SEEDS)
def test_columns_are_the_digits_from_the_right(operation, b, seed):
    """Column i is made of digit i of both numbers, and of the carry or the loan of column i - 1."""
    a, trace = 999, Trace()
    operation(trace, a, b, Random(seed))
    text = "".join(piece.text for piece in trace.pieces if piece.taught)
    columns = [left for left, _ in STATEMENT.findall(text.split(": ")[1])]
    digits = [(int(x) % 10, int(y)) for x, y in (re.findall(r"\d+", c)[:2] for c in columns)]
    expected = [(a // 10**i % 10, b // 10**i % 10) for i in range(3)]
    assert digits == expected


def test_subtraction_takes_the_smaller_from_the_larger():
    with pytest.raises(AssertionError, match="smaller from the larger"):
        subtract(Trace(), 1, 2, Random(0))


@pytest.mark.parametrize("column", ["0+0=0", "5-5=0", "9+9+1=19", "4+6=10", "1+0=1"])
def test_a_slip_is_another_number(column):
    found = {arithmetic._with_a_slip(column, Random(seed)) for seed in range(200)}
    left, _, right = column.partition("=")
    assert all(wrong.startswith(f"{left}=") for wrong in found)
    assert column not in found
    assert len(found) > 1 or right == "0"
    numbers = {wrong.partition("=")[2] for wrong in found}
    assert all(number.isdigit() for number in numbers)
