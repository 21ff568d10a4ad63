"""Gaussian process regression over 0/1 vectors (Rasmussen and Williams, 2006).

Written out because a candidate takes milliseconds; the import of a library for it takes seconds.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

SCALES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # length scales; the likeliest one is taken


@dataclass(frozen=True)
class GaussianProcess:
    """The posterior after ``n`` observations (algorithm 2.1).

    ``x [n, M]``: where they were made.
    ``scale``: length scale of the covariance.
    ``factor``, ``weights``: the lower Cholesky factor, and alpha.
    ``mean``, ``spread``: of the observed values, which are normalised by them.
    ``likelihood``: logarithm, without its constant.
    """

    x: Float[np.ndarray, "n M"]
    scale: float
    factor: Float[np.ndarray, "n n"]
    weights: Float[np.ndarray, " n"]
    mean: float
    spread: float
    likelihood: float

    @classmethod
    def fit(
        cls, x: Float[np.ndarray, "n M"], y: Float[np.ndarray, " n"], noise: float
    ) -> "GaussianProcess":
        """``noise``: variance of an observation, in units of their own variance."""
        return max(
            (cls._with_scale(x, y, noise, scale) for scale in SCALES),
            key=lambda process: process.likelihood,
        )

    @classmethod
    def _with_scale(
        cls, x: Float[np.ndarray, "n M"], y: Float[np.ndarray, " n"], noise: float, scale: float
    ) -> "GaussianProcess":
        mean, spread = float(y.mean()), float(y.std()) or 1.0
        values = (y - mean) / spread
        factor = np.linalg.cholesky(matern(x, x, scale) + noise * np.eye(len(x)))
        weights = np.linalg.solve(factor.T, np.linalg.solve(factor, values))
        # eq. 2.30, without its constant
        likelihood = -0.5 * float(values @ weights) - float(np.log(factor.diagonal()).sum())
        return cls(x, scale, factor, weights, mean, spread, likelihood)

    def predict(
        self, x: Float[np.ndarray, "p M"]
    ) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " p"]]:
        """Mean and standard deviation at each of the vectors (eq. 2.25, 2.26)."""
        near = matern(x, self.x, self.scale)
        known = np.linalg.solve(self.factor, near.T)
        variance = np.maximum(1 - (known**2).sum(0), 0)
        return self.mean + self.spread * (near @ self.weights), self.spread * np.sqrt(variance)


def matern(
    a: Float[np.ndarray, "p M"], b: Float[np.ndarray, "n M"], scale: float
) -> Float[np.ndarray, "p n"]:
    """The Matern covariance for nu = 5/2 (eq. 4.17)."""
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    r = np.sqrt(5 * np.maximum(squares, 0)) / scale
    return (1 + r + r**2 / 3) * np.exp(-r)
