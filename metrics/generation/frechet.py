"""The Frechet distance of two Gaussians, the D in FID, by the numerically best way.

``|m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))`` (Dowson and Landau 1982; Heusel et al. 2017). With any factors
``S = F^T F`` the last trace is the sum of the singular values of ``F1 F2^T``: no square root of a matrix, hence no
imaginary parts to be dropped, and nothing is added to a diagonal when there are fewer images than dimensions.
"""

from __future__ import annotations

import numpy as np

from metrics.generation.gaussians import GaussianStatistics, checked_features
from multiobj_data.arrays import Array, to_numpy

_EXACT = 1e-10  # expected error of a trace, relative


def frechet_distance(real: Array | GaussianStatistics, generated: Array | GaussianStatistics) -> float:
    """Return the squared Frechet distance between Gaussians fitted to two sets of features.

    It falls with n for the same two distributions: compare only distances at equal n, and see `frechet_floor`.

    Args:
        real: Floats ``[N, D]`` with N >= 2 (NumPy or torch), or their `GaussianStatistics`.
        generated: Likewise ``[M, D]``; the two sides may be of different kinds.

    Returns:
        The distance, at least 0, in squared units of the features. Where N <= D, features give it to rounding (two
        equal sets: 0); statistics of so few cannot, an error of about 1e-6 of the variance may remain.

    Raises:
        ValueError: If shapes do not fit, values are not finite, or a covariance has negative eigenvalues.
    """
    mean1, factor1 = _gaussian("real", real)
    mean2, factor2 = _gaussian("generated", generated)
    if len(mean1) != len(mean2):
        raise ValueError(
            f"frechet_distance: expected features of the same extractor, got {len(mean1)} and {len(mean2)} dimensions."
        )
    shift = mean1 - mean2
    full_rank = len(factor1) == len(factor2) == len(mean1)
    root = _sum_of_singular_values(factor1 @ factor2.T, full_rank=full_rank)
    spread = np.sum(factor1**2) + np.sum(factor2**2) - 2 * root
    return float(shift @ shift + max(spread, 0.0))  # the spread is negative by rounding alone


def frechet_floor(features: Array, *, rng: np.random.Generator, n: int | None = None) -> tuple[float, int]:
    """Return the Frechet distance between two disjoint halves of one set, and how many each half holds.

    A generator whose samples cannot be told from the data scores this on average, not 0.

    Args:
        features: Floats ``[N, D]``, N >= 4, of real images.
        rng: Divides the set.
        n: Images a half, where N allows; half of them by default.

    Raises:
        ValueError: If there are fewer than 4 features, or ``n`` is below 2.
    """
    features = to_numpy(checked_features("features", features))
    if len(features) < 4:
        raise ValueError(f"features: expected 4 or more to make two halves, got {len(features)}.")
    if n is not None and n < 2:
        raise ValueError(f"n: expected 2 or more features a half, got {n}.")
    half = min(n or len(features), len(features) // 2)
    order = rng.permutation(len(features))
    return frechet_distance(features[order[:half]], features[order[half : 2 * half]]), half


def _gaussian(name: str, given: Array | GaussianStatistics) -> tuple[np.ndarray, np.ndarray]:
    """Return mean ``[D]`` and a factor ``[r, D]`` of the covariance: of few features, the features themselves."""
    if isinstance(given, GaussianStatistics):
        return given.mean, given.factor
    features = checked_features(name, given)
    n, d = features.shape
    if n < 2:
        raise ValueError(f"{name}: expected 2 or more features for a covariance, got {n}.")
    if n >= d:
        statistics = GaussianStatistics.of(features)
        return statistics.mean, statistics.factor
    features = to_numpy(features)
    mean = features.mean(0)
    return mean, (features - mean) / np.sqrt(n - 1)


def _sum_of_singular_values(matrix: np.ndarray, *, full_rank: bool) -> float:
    """Return the sum of singular values of F1 F2^T; by eigenvalues of its Gram matrix where these are exact enough.

    Those take a fraction of the time, but an error of eps in the largest weighs heavily on the root of a small one.
    """
    if full_rank:
        squares = np.maximum(np.linalg.eigvalsh(matrix @ matrix.T), 0)  # ascending
        values = np.sqrt(squares)
        with np.errstate(divide="ignore", invalid="ignore"):
            errors = np.finfo(np.float64).eps * squares[-1] / (2 * values)
        if np.sqrt(np.sum(errors**2)) <= _EXACT * values.sum():  # false for NaN and infinity
            return float(values.sum())
    return float(np.linalg.svd(matrix, compute_uv=False).sum())
