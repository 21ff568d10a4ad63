"""How far a measured accuracy, or a difference of two, can be trusted: 95 % intervals."""

from collections.abc import Sequence
from math import sqrt

import numpy as np

Z = 1.959963984540054  # the 97.5 % point of the standard normal distribution
RESAMPLES = 10_000
AT_ONCE = 500  # resamples; each takes 8 bytes a distinct value
PERCENTILES = (2.5, 97.5)


def wilson(solved: int, n: int) -> tuple[float, float]:
    """Wilson's score interval of a proportion, from ``solved`` of ``n``.

    (p + z^2/2n ± z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n),  p = solved / n
    (E. B. Wilson, JASA 22, 1927; Brown, Cai, DasGupta, Statistical Science 16, 2001, eq. 4).
    Never leaves [0, 1], and says something where all or none are solved.
    """
    assert n > 0
    assert 0 <= solved <= n, (solved, n)
    p, z2 = solved / n, Z * Z / n
    middle = (p + z2 / 2) / (1 + z2)
    reach = Z * sqrt(p * (1 - p) / n + z2 / (4 * n)) / (1 + z2)
    # At the ends the bounds are 0 and 1 exactly; rounding would leave them a hair beside.
    low = 0.0 if solved == 0 else middle - reach
    high = 1.0 if solved == n else middle + reach
    return low, high


def paired_bootstrap(differences: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of paired differences ``[n]``.

    10,000 times n differences are drawn with replacement; the interval runs from the 2.5th to the
    97.5th percentile of their means (Efron, Tibshirani, An Introduction to the Bootstrap, 1993,
    ch. 13). How often each distinct value is drawn is multinomial, so that is what is drawn:
    the same distribution, and a few numbers a resample where the differences are -1, 0 and 1.
    Differences that are all alike give an interval of no width: too narrow, where n is small.
    """
    assert len(differences) > 0
    values, counts = np.unique(np.asarray(differences, np.float64), return_counts=True)
    n = len(differences)
    noise = np.random.default_rng(seed)
    sums = [
        noise.multinomial(n, counts / n, size=AT_ONCE) @ values for _ in range(RESAMPLES // AT_ONCE)
    ]
    low, high = np.percentile(np.concatenate(sums) / n, PERCENTILES)
    return float(low), float(high)


def geometric_mean(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Of positive ratios, with the bootstrap interval of the mean of their logarithms."""
    logs = np.log(ratios)
    low, high = paired_bootstrap(logs.tolist())
    return float(np.exp(logs.mean())), float(np.exp(low)), float(np.exp(high))
