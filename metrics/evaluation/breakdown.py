"""Scores by how hard the scenes are: bins of a difficulty, with mean and standard error in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metrics.running import Mean

BINS = 5
"""Quantile bins of a difficulty that is no number of objects."""


@dataclass(frozen=True)
class Bin:
    """The scenes whose difficulty lies in one interval.

    Attributes:
        low: Smallest value among them.
        high: Largest value among them.
        images: How many scenes.
        metrics: Metric -> ``mean``, ``stderr``, ``n``, ``skipped``.
    """

    low: float
    high: float
    images: int
    metrics: Mapping[str, Mapping[str, float | int]]

    @property
    def label(self) -> str:
        """The interval as text, one number if it is a point."""
        low, high = f"{self.low:.3g}", f"{self.high:.3g}"
        return low if low == high else f"{low}–{high}"

    @property
    def middle(self) -> float:
        """Half way between the ends."""
        return (self.low + self.high) / 2

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {"low": self.low, "high": self.high, "images": self.images, "metrics": self.metrics}


def bins_of(
    columns: Mapping[str, np.ndarray], by: str, metrics: Sequence[str], bins: int = BINS
) -> list[Bin]:
    """Sort scenes into bins of ``columns[by]`` and sum up each metric in each.

    A column of at most ``bins`` different values, or a number of objects, gets one bin a value; any other quantile
    bins, whose edges are values of scenes, so that equal values share a bin. Scenes without a value (NaN) are in no
    bin; where none has one, there are no bins.

    Args:
        columns: Arrays ``[N]`` by name, as `metrics.Evaluation.columns`.
        by: The difficulty.
        metrics: The metrics; NaN is skipped and counted.
        bins: At most so many quantile bins.
    """
    values = columns[by].astype(np.float64)
    known = np.flatnonzero(~np.isnan(values))
    if not len(known):
        return []
    number = _numbers(values[known], bins, whole=_is_number_of_objects(by))
    return [_bin(values, known[number == i], columns, metrics) for i in np.unique(number)]


def _is_number_of_objects(column: str) -> bool:
    return column in ("true_count", "predicted_count")


def _numbers(values: np.ndarray, bins: int, whole: bool) -> np.ndarray:
    """Return each value's bin, int64 ``[N]``."""
    distinct, number = np.unique(values, return_inverse=True)
    if whole or len(distinct) <= bins:
        return number
    inner = np.quantile(values, np.arange(1, bins) / bins, method="lower")
    return np.searchsorted(np.unique(inner), values, side="left")


def _bin(
    values: np.ndarray, rows: np.ndarray, columns: Mapping[str, np.ndarray], metrics: Sequence[str]
) -> Bin:
    summaries = {}
    for name in metrics:
        mean = Mean()
        mean.update(columns[name][rows])
        summaries[name] = mean.summary()
    return Bin(float(values[rows].min()), float(values[rows].max()), len(rows), summaries)
