"""Bootstrap intervals of a mean over images."""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

from metrics.libraries import is_finite, is_whole

IntervalMethod = Literal["bca", "percentile"]
RESAMPLES = 2000
_AT_ONCE = 2_000_000  # indices drawn at a time: 16 MB


def mean_interval(
    values: np.ndarray,
    level: float,
    rng: np.random.Generator,
    *,
    method: IntervalMethod = "bca",
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """Return a bootstrap confidence interval of the mean (Efron and Tibshirani 1993, ch. 13 and 14).

    Images are drawn anew with replacement. What is random is the images alone: not the model's training.

    Args:
        values: float64 ``[N]`` without NaN. Sorted first, so that their order does not matter.
        level: Share of such intervals that hold the true mean, in (0, 1).
        rng: Source of the draws: ``resamples * N`` whole numbers.
        method: ``"bca"`` corrects bias and skewness (accelerated), ``"percentile"`` does not.
        resamples: Number of resampled sets.

    Returns:
        Both ends; NaN for fewer than two values, and for ``"bca"`` in the few-value cases that leave it undefined.

    Raises:
        ValueError: If an argument is out of range.
    """
    if not (is_finite(level) and 0 < level < 1):
        raise ValueError(f"level: expected a share above 0 and below 1, got {level!r}.")
    if method not in get_args(IntervalMethod):
        raise ValueError(f"method: expected 'bca' or 'percentile', got {method!r}.")
    if not is_whole(resamples, 1):
        raise ValueError(f"resamples: expected 1 or more, got {resamples!r}.")
    if not isinstance(rng, np.random.Generator):
        raise ValueError(f"rng: expected a numpy.random.Generator, got {type(rng).__name__}.")
    if len(values) < 2:
        return math.nan, math.nan
    values = np.sort(values)
    if values[0] == values[-1]:
        return float(values[0]), float(values[0])
    means = _resampled_means(values, rng, resamples)
    ends = [(1 - level) / 2, (1 + level) / 2]
    if method == "bca":
        ends = _corrected(ends, values, means)
    if any(map(math.isnan, ends)):
        return math.nan, math.nan
    low, high = np.quantile(means, ends)
    return float(low), float(high)


def _resampled_means(values: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    means, n = np.empty(resamples), len(values)
    step = max(1, _AT_ONCE // n)
    for start in range(0, resamples, step):
        part = means[start : start + step]
        part[:] = values[rng.integers(0, n, (len(part), n))].mean(1)
    return means


def _corrected(ends: list[float], values: np.ndarray, means: np.ndarray) -> list[float]:
    """Return BCa's quantiles of the resampled means; for a mean the acceleration has a closed form."""
    from statistics import NormalDist

    normal, mean = NormalDist(), values.mean()
    equal = np.isclose(means, mean, rtol=0, atol=1e-13 * np.abs(values).max())
    below = float(np.mean(np.where(equal, 0.5, means < mean)))
    if not 0 < below < 1:
        return [math.nan, math.nan]
    bias, off = normal.inv_cdf(below), values - mean
    scale = np.abs(off).max()  # so that no power under- or overflows
    acceleration = float(((off / scale) ** 3).sum() / (6 * ((off / scale) ** 2).sum() ** 1.5))
    shifted = [bias + normal.inv_cdf(end) for end in ends]
    return [normal.cdf(bias + z / (1 - acceleration * z)) for z in shifted]
