"""The rows that stand for all: nothing that has to occur is left out, and they are few."""

import os
import subprocess
import sys
from itertools import combinations, product
from math import prod
from pathlib import Path

import pytest

from tests.pairs.cells import AXES
from tests.pairs.covering import covering

SMALL = {"a": ["1", "2", "3"], "b": ["1", "2"], "c": ["x", "y", "z"], "d": ["-", "+"]}


@pytest.mark.parametrize("axes", [SMALL, AXES], ids=["small", "the matrix"])
@pytest.mark.parametrize("strength", [1, 2, 3])
def test_every_choice_of_values_occurs(axes, strength):
    rows = covering(axes, strength)
    for names in combinations(axes, strength):
        occur = {tuple(row[name] for name in names) for row in rows}
        assert occur == set(product(*(axes[name] for name in names)))
    largest = sorted(map(len, axes.values()))[-strength:]
    assert prod(largest) <= len(rows) <= 1.35 * prod(largest)
    assert all(row.keys() == axes.keys() for row in rows)


def test_the_same_rows_in_every_process():
    """The workers of a test run must agree on them, however they hash strings."""
    script = f"from tests.pairs.covering import covering; print(covering({SMALL}, 3))"
    for seed in ("1", "2", "3"):
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"{covering(SMALL, 3)}\n"


def test_as_strong_as_there_are_axes_is_the_whole_product():
    rows = covering(SMALL, len(SMALL))
    assert len(rows) == prod(map(len, SMALL.values()))
