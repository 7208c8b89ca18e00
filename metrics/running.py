"""The one accumulator: the mean of any per-image metric, with its standard error."""

from __future__ import annotations

import math

import numpy as np

from multiobj_data.arrays import Array, to_numpy
from multiobj_data.scenes import expect


class Mean:
    """Mean and standard error over images of a per-image metric.

    NaN values count as skipped. Values are kept (8 bytes an image) and summed exactly (`math.fsum`), so that
    the result depends neither on the order of images nor on how they were spread over batches or workers:
    merging parts gives, bit for bit, what one pass gives.

    With ids, an image counts once however often it comes (samplers of several workers repeat images to fill
    the last batch); its first value is kept.
    """

    def __init__(self) -> None:
        self._values: list[np.ndarray] = []
        self._ids: list[np.ndarray] = []

    def update(self, values: Array, ids: Array | None = None) -> None:
        """Add a batch.

        Args:
            values: Floats ``[B]``; NaN is skipped and counted.
            ids: Whole numbers ``[B]``, one an image; in every update or in none.

        Raises:
            ValueError: If shapes disagree, or ids come in some updates only.
        """
        expect("values", values, (None,), "f")
        if ids is not None:
            expect("ids", ids, (len(values),), "iu")
        if self._values and (ids is None) == bool(self._ids):
            raise ValueError("ids: expected in every update or in none.")
        self._values.append(to_numpy(values).astype(np.float64))
        if ids is not None:
            self._ids.append(to_numpy(ids).astype(np.int64))

    def merge(self, other: Mean) -> None:
        """Add everything that ``other`` has seen; both with ids or both without."""
        if self._values and other._values and bool(self._ids) != bool(other._ids):
            raise ValueError("merge: expected ids on both sides or on neither.")
        self._values += other._values
        self._ids += other._ids

    @property
    def values(self) -> np.ndarray:
        """All values, float64 ``[N]``, NaN included: by increasing id, or in order of arrival without ids."""
        values = np.concatenate([np.empty(0), *self._values])
        if self._ids:
            _, first = np.unique(np.concatenate(self._ids), return_index=True)
            values = values[first]
        return values

    def summary(self) -> dict[str, float | int]:
        """Return ``mean``, ``stderr``, ``n`` (scored) and ``skipped``.

        ``stderr`` is the sample standard deviation (ddof 1) over ``sqrt(n)``. What does not exist (the mean
        of nothing, the standard error of one value) is NaN.
        """
        values = self.values
        scored = values[~np.isnan(values)]
        n = len(scored)
        mean = math.fsum(scored) / n if n else math.nan
        stderr = math.sqrt(math.fsum((scored - mean) ** 2) / (n - 1) / n) if n > 1 else math.nan
        return {"mean": mean, "stderr": stderr, "n": n, "skipped": len(values) - n}
