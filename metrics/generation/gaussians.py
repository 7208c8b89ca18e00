"""Mean and covariance of features: summed up batch by batch in float64, merged in any order, kept in a file.

A batch is centred before it is squared (Chan, Golub and LeVeque 1983), so that nothing cancels where features lie
far from 0, and a stream gives what two passes over all features give.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from multiobj_data.arrays import Array, is_tensor, to_numpy
from multiobj_data.errors import DataError
from multiobj_data.files import replacing
from multiobj_data.scenes import dtype_kind, expect

_ASYMMETRY = 1e-6  # of a covariance, relative to its largest entry: more is no rounding, even of float32
_NEGATIVE = 1e-6  # of an eigenvalue, relative to the largest: likewise
_CONDITION = 1e-6  # ratio of Cholesky pivots below which rounding decides about the small ones


@dataclass(frozen=True, eq=False)
class GaussianStatistics:
    """Mean and covariance of a set of features: all that the Frechet distance needs of it.

    Attributes:
        mean: float64 ``[D]``.
        covariance: float64 ``[D, D]``, symmetric, unbiased (divided by n - 1).
        n: How many features they were computed from; ``None`` if nobody wrote it down.
        stamp: Where they come from (extractor, data, protocol); JSON values.

    Raises:
        ValueError: If the shapes do not fit, a value is not finite, or the covariance is not symmetric.
    """

    mean: np.ndarray
    covariance: np.ndarray
    n: int | None = None
    stamp: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("mean", "covariance"):
            expect(name, getattr(self, name), (None,) * (1 if name == "mean" else 2), "f")
            object.__setattr__(self, name, to_numpy(getattr(self, name)).astype(np.float64))
        d = len(self.mean)
        expect("covariance", self.covariance, (d, d))
        if not (np.isfinite(self.mean).all() and np.isfinite(self.covariance).all()):
            raise ValueError("mean and covariance: expected finite values, got NaN or infinity.")
        if self.n is not None and self.n < 2:
            raise ValueError(f"n: expected 2 or more features for a covariance, got {self.n}.")
        off = np.abs(self.covariance - self.covariance.T).max(initial=0)
        if off > _ASYMMETRY * np.abs(self.covariance).max(initial=0):
            raise ValueError(
                f"covariance: expected a symmetric matrix, got entries that differ by {off:.3g}."
            )

    @classmethod
    def of(cls, features: Array, stamp: Mapping[str, Any] | None = None) -> GaussianStatistics:
        """Return the statistics of features, floats ``[N, D]`` with N >= 2."""
        moments = FeatureMoments()
        moments.update(features)
        return moments.statistics(stamp)

    @cached_property
    def factor(self) -> np.ndarray:
        """F, float64 ``[r, D]`` with ``F^T F`` = covariance; r is its rank as far as rounding lets one tell.

        Raises:
            ValueError: If an eigenvalue is negative by more than rounding: such a matrix is no covariance.
        """
        if self.n is None or self.n > len(self.mean):
            try:
                lower = np.linalg.cholesky(self.covariance)
            except np.linalg.LinAlgError:
                return self._factor_of_any_rank()
            pivots = np.diagonal(lower)
            if pivots.min() > _CONDITION * pivots.max():
                return lower.T
        return self._factor_of_any_rank()

    def _factor_of_any_rank(self) -> np.ndarray:
        """Return F from eigenvectors, without those whose eigenvalues are rounding and no more."""
        values, vectors = np.linalg.eigh((self.covariance + self.covariance.T) / 2)  # ascending
        d, lowest, largest = len(values), values[0], values[-1]
        if lowest < -_NEGATIVE * max(largest, 0.0):
            raise ValueError(
                f"covariance: expected no negative eigenvalue, got {lowest:.3g} (the largest is {largest:.3g}); "
                "this is no covariance matrix, compute it anew in float64."
            )
        rank = d if self.n is None else min(d, self.n - 1)
        known = values > max(largest * d * np.finfo(np.float64).eps, -lowest)
        known[: d - rank] = False
        return np.sqrt(values[known])[:, None] * vectors[:, known].T

    def save(self, path: str | Path) -> None:
        """Write an ``.npz`` with ``mu``, ``sigma`` (the names of pytorch-fid, which reads it), ``n``, ``stamp``.

        Raises:
            UsageError: If the folder does not exist.
            MobjError: If the file cannot be written.
        """
        extras: dict[str, Any] = {} if self.n is None else {"n": np.int64(self.n)}
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(
                file,
                mu=self.mean,
                sigma=self.covariance,
                stamp=np.array(json.dumps(dict(self.stamp))),
                **extras,
            )

    @classmethod
    def load(cls, path: str | Path) -> GaussianStatistics:
        """Read what `save` wrote, or an ``.npz`` with ``mu`` and ``sigma`` of pytorch-fid or clean-fid.

        Raises:
            DataError: If there is no such file, or it holds no statistics.
        """
        try:
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                if not {"mu", "sigma"} <= set(file.files):
                    raise DataError(
                        f"{path}: expected the arrays 'mu' and 'sigma' of feature statistics, got "
                        f"{', '.join(file.files) or 'none'}."
                    )
                n = int(file["n"]) if "n" in file.files else None
                stamp = json.loads(str(file["stamp"])) if "stamp" in file.files else {}
                return cls(file["mu"], file["sigma"], n, stamp)
        except FileNotFoundError:
            raise DataError(f"{path}: there is no such file of statistics.") from None
        except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: cannot be read as feature statistics: {error}") from error


class FeatureMoments:
    """Sums up features that come in batches; ``merge`` joins what several workers saw, in any order.

    Batches are NumPy arrays or tensors; the sums stay in the library and on the device of the first batch.
    """

    def __init__(self) -> None:
        self.n = 0
        self._mean: Any = None  # [D]
        self._scatter: Any = None  # [D, D], the sum of (x - mean)(x - mean)^T

    def update(self, features: Array) -> None:
        """Add a batch.

        Args:
            features: Floats ``[N, D]``; D as in every other batch. N may be 0.

        Raises:
            ValueError: If the shape is another, or a value is not finite.
        """
        batch = checked_features("features", features)
        if len(batch) == 0:
            return
        mean = batch.mean(0)
        centred = batch - mean
        self._add(len(batch), mean, centred.T @ centred)

    def merge(self, other: FeatureMoments) -> None:
        """Add everything that ``other`` has seen."""
        if other.n:
            self._add(other.n, other._mean, other._scatter)

    def _add(self, n: int, mean: Array, scatter: Array) -> None:
        if self.n == 0:
            self.n, self._mean, self._scatter = n, mean, scatter
            return
        if len(mean) != len(self._mean):
            raise ValueError(f"features: expected {len(self._mean)} dimensions as before, got {len(mean)}.")
        if is_tensor(self._mean) != is_tensor(mean):
            self._mean, self._scatter, mean, scatter = map(
                to_numpy, (self._mean, self._scatter, mean, scatter)
            )
        elif is_tensor(mean):
            mean, scatter = mean.to(self._mean.device), scatter.to(self._mean.device)
        total = self.n + n
        step = mean - self._mean
        self._scatter = self._scatter + scatter + (self.n * n / total) * (step[:, None] * step[None])
        self._mean = self._mean + step * (n / total)
        self.n = total

    def statistics(self, stamp: Mapping[str, Any] | None = None) -> GaussianStatistics:
        """Return mean and unbiased covariance of all that was added.

        Raises:
            ValueError: If that is fewer than two features.
        """
        if self.n < 2:
            raise ValueError(f"features: expected 2 or more for a covariance, got {self.n}.")
        covariance = to_numpy(self._scatter) / (self.n - 1)
        return GaussianStatistics(to_numpy(self._mean), covariance, self.n, dict(stamp or {}))


def checked_features(name: str, features: Array) -> Array:
    """Return features ``[N, D]`` as float64, in kind and in place.

    Raises:
        ValueError: If they are no floats ``[N, D]`` with D >= 1, or not finite.
    """
    expect(name, features, (None, None))
    if dtype_kind(features) != "f":
        raise ValueError(
            f"{name}: expected floats, got {features.dtype}; images must pass a feature extractor first."
        )
    if features.shape[1] == 0:
        raise ValueError(f"{name}: expected at least one dimension, got shape {list(features.shape)}.")
    double = features.detach().double() if is_tensor(features) else np.asarray(features, np.float64)
    if not bool((abs(double) < float("inf")).all()):  # NaN compares false
        raise ValueError(f"{name}: expected finite values, got NaN or infinity.")
    return double
