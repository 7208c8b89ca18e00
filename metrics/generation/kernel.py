"""The kernel distance between two sets of features, the KD in KID: unlike the Frechet distance, unbiased in n."""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import numpy as np

from metrics.generation.gaussians import checked_features
from multiobj_data.arrays import Array, to_numpy


class KernelDistance(NamedTuple):
    """A kernel distance over random subsets.

    Attributes:
        mean: Over the subsets; may be negative where the sets are alike.
        stderr: Standard error of that mean over subsets, ``std / sqrt(subsets)``; subsets overlap, so it says how
            far the choice of subsets matters, not how far the choice of images does.
        std: Standard deviation over subsets (ddof 1); what others print after the plus-minus sign has ddof 0.
        subsets: How many.
        subset_size: Images in each.
    """

    mean: float
    stderr: float
    std: float
    subsets: int
    subset_size: int


def kernel_distance(
    real: Array,
    generated: Array,
    *,
    rng: np.random.Generator,
    subsets: int = 100,
    subset_size: int = 1000,
    degree: int = 3,
    scale: float | None = None,
    offset: float = 1.0,
) -> KernelDistance:
    """Return the unbiased squared maximum mean discrepancy under ``k(x, y) = (scale x.y + offset)^degree``.

    The defaults are those of Binkowski et al. 2018 and of every package since: a cubic kernel with scale 1/D.

    Args:
        real: Floats ``[N, D]``, NumPy or torch.
        generated: Floats ``[M, D]``.
        rng: Draws the subsets, without replacement within each.
        subsets: How many subsets of either side to average over.
        subset_size: Images in each; at most N and M.
        degree: Of the polynomial.
        scale: Of the inner product; ``None`` is 1/D.
        offset: Added to the scaled inner product.

    Raises:
        ValueError: If shapes do not fit, values are not finite, or the sets are smaller than a subset.
    """
    x, y = (
        to_numpy(checked_features(name, features))
        for name, features in (("real", real), ("generated", generated))
    )
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"kernel_distance: expected features of the same extractor, got {x.shape[1]} and {y.shape[1]} dimensions."
        )
    if subsets < 1 or degree < 1 or not 2 <= subset_size <= min(len(x), len(y)):
        raise ValueError(
            f"kernel_distance: expected subsets >= 1, degree >= 1 and a subset_size of 2..{min(len(x), len(y))} (the "
            f"images at hand), got subsets={subsets}, degree={degree}, subset_size={subset_size}."
        )
    scale = 1 / x.shape[1] if scale is None else scale

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        base = scale * (a @ b.T) + offset
        return reduce(np.multiply, [base] * degree)  # a power of an array takes many times as long

    values = np.empty(subsets)
    for i in range(subsets):
        a = x[rng.choice(len(x), subset_size, replace=False)]
        b = y[rng.choice(len(y), subset_size, replace=False)]
        values[i] = (
            _off_diagonal_mean(kernel(a, a)) + _off_diagonal_mean(kernel(b, b)) - 2 * kernel(a, b).mean()
        )
    std = float(values.std(ddof=1)) if subsets > 1 else float("nan")
    return KernelDistance(float(values.mean()), std / subsets**0.5, std, subsets, subset_size)


def _off_diagonal_mean(matrix: np.ndarray) -> float:
    n = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (n * (n - 1)))
