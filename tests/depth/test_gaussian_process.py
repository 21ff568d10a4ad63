"""The posterior of a Gaussian process, against the textbook's formulas without any factoring."""

import numpy as np
import pytest

from sparing.depth.gaussian_process import SCALES, GaussianProcess, matern

RNG = np.random.default_rng(0)
NOISE = 1e-2


def drawn(count, width=12):
    return RNG.integers(0, 2, (count, width)).astype(float)


def test_matern_by_hand():
    a, b = np.array([[1.0, 0, 0]]), np.array([[1.0, 0, 0], [0, 1, 1]])
    r = 15**0.5 / 2  # sqrt(5 * 3) / scale
    expected = [1.0, (1 + r + r * r / 3) * np.exp(-r)]
    assert matern(a, b, 2.0)[0] == pytest.approx(expected)


@pytest.mark.parametrize("count", [2, 9, 40])
def test_mean_and_variance(count):
    """k' (K + s I)^-1 y and 1 - k' (K + s I)^-1 k."""
    x, new = drawn(count), drawn(5)
    y = x.sum(1) + RNG.normal(0, 0.1, count)
    process = GaussianProcess.fit(x, y, NOISE)
    inverse = np.linalg.inv(matern(x, x, process.scale) + NOISE * np.eye(count))
    near = matern(new, x, process.scale)
    values = (y - y.mean()) / y.std()
    mean, spread = process.predict(new)
    assert mean == pytest.approx(y.mean() + y.std() * near @ inverse @ values)
    variance = 1 - np.einsum("pi,ij,pj->p", near, inverse, near)
    assert spread == pytest.approx(y.std() * np.sqrt(variance))


def test_the_likeliest_scale_is_taken():
    x = drawn(30)
    y = x @ RNG.normal(size=12)

    def likelihood(scale):
        covariance = matern(x, x, scale) + NOISE * np.eye(30)
        values = (y - y.mean()) / y.std()
        sign, determinant = np.linalg.slogdet(covariance)
        assert sign == 1
        return -0.5 * values @ np.linalg.inv(covariance) @ values - 0.5 * determinant

    process = GaussianProcess.fit(x, y, NOISE)
    assert process.scale == max(SCALES, key=likelihood)
    assert process.likelihood == pytest.approx(likelihood(process.scale))


def test_what_is_known_is_certain_and_what_is_far_is_not():
    x = np.eye(6)
    process = GaussianProcess.fit(x, np.arange(6.0), 1e-6)
    mean, spread = process.predict(x)
    assert mean == pytest.approx(np.arange(6.0), abs=1e-2)
    assert spread.max() < 0.01
    assert process.predict(np.ones((1, 6)))[1] > 0.05


def test_values_that_are_all_the_same():
    mean, _ = GaussianProcess.fit(drawn(4), np.full(4, 0.7), NOISE).predict(drawn(3))
    assert mean == pytest.approx([0.7] * 3)
