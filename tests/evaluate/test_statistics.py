"""Intervals against known values, brute force, and what they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparing.evaluate.statistics import Z, paired_bootstrap, wilson


@pytest.mark.parametrize(
    ("solved", "n", "low", "high"),
    [  # R: prop.test(solved, n, correct = FALSE)$conf.int
        (8, 10, 0.4901625, 0.9433178),
        (0, 10, 0.0, 0.2775328),
        (10, 10, 0.7224672, 1.0),
        (15, 148, 0.0624, 0.1605),  # Newcombe 1998, table I
        (81, 263, 0.2553, 0.3662),
        (180, 200, 0.8506108, 0.9343310),
    ],
)
def test_wilson_as_known(solved, n, low, high):
    assert wilson(solved, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_where_the_score_test_turns(counts):
    solved, n = counts
    low, high = wilson(solved, n)
    assert 0 <= low <= solved / n <= high <= 1
    for bound in (low, high):
        if 0 < bound < 1:  # |p - bound| = z sqrt(bound (1 - bound) / n)
            assert abs(solved / n - bound) == pytest.approx(Z * (bound * (1 - bound) / n) ** 0.5)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("choices", [(-1, 0, 1), (0, 0, 0, 1), (-3.5, 0.25, 1e3)])
def test_bootstrap_as_by_brute_force(seed, choices):
    rng = np.random.default_rng(seed)
    differences = rng.choice(choices, size=1000)
    low, high = paired_bootstrap(differences, seed)
    means = differences[rng.integers(0, 1000, size=(5000, 1000))].mean(1)
    reach = means.std() * 0.2
    assert (low, high) == pytest.approx(tuple(np.percentile(means, (2.5, 97.5))), abs=reach)


def test_bootstrap_is_seeded_and_knows_certainty():
    differences = [1, 0, 0, -1, 1, 1, 0]
    assert paired_bootstrap(differences) == paired_bootstrap(differences)
    assert paired_bootstrap([0] * 9) == (0, 0)
    assert paired_bootstrap([1]) == (1, 1)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    covered = 0
    for trial in range(200):
        low, high = paired_bootstrap(rng.choice([-1, 0, 1], p=[0.1, 0.6, 0.3], size=100), trial)
        covered += low <= 0.2 <= high
    assert 180 <= covered <= 199  # 190 expected, standard deviation 3
