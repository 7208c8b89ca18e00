"""The one accumulator: the mean of any per-image metric, with its standard error and interval."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from metrics.bootstrap import RESAMPLES, IntervalMethod, mean_interval
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

    def __repr__(self) -> str:
        """Return what a reader in a notebook wants: the `summary`, rounded."""
        facts = self.summary()
        return (
            f"Mean({facts['mean']:.6g} ± {facts['stderr']:.2g}, n={facts['n']}, skipped={facts['skipped']})"
        )

    def update(self, values: Array, ids: Array | None = None) -> None:
        """Add a batch.

        Args:
            values: Floats ``[B]``; NaN is skipped and counted.
            ids: Whole numbers ``[B]``, one an image; in every update or in none.

        Raises:
            ValueError: If shapes disagree, a value is infinite, or ids come in some updates only.
        """
        expect("values", values, (None,), "f")
        if ids is not None:
            expect("ids", ids, (len(values),), "iu")
        if self._values and (ids is None) == bool(self._ids):
            raise ValueError("ids: expected in every update or in none.")
        added = to_numpy(values).astype(np.float64)
        if np.isinf(added).any():
            raise ValueError("values: expected finite values or NaN, got infinity, which no mean can hold.")
        self._values.append(added)
        if ids is not None:
            self._ids.append(to_numpy(ids).astype(np.int64))

    def merge(self, other: Mean) -> None:
        """Add everything that ``other`` has seen; both with ids or both without."""
        if self._values and other._values and bool(self._ids) != bool(other._ids):
            raise ValueError("merge: expected ids on both sides or on neither.")
        self._values += other._values
        self._ids += other._ids

    def gather(self, group: object = None) -> Mean:
        """Return the mean over what all processes have seen, in each process, bit for bit that of one pass.

        A collective call over ``torch.distributed``: every process of the group must make it, also one that
        has seen nothing. Give ids where a sampler repeats images. Without a process group it is a copy.

        Args:
            group: The process group; the default one for ``None``.
        """
        from metrics.gathering import gather_objects

        whole = Mean()
        for state in gather_objects(self.state(), group):
            whole.merge(Mean.from_state(state))
        return whole

    def state(self) -> dict[str, np.ndarray]:
        """Return everything seen, to be saved (``np.savez(file, **mean.state())``) and read by `from_state`.

        Returns:
            ``values``, float64 ``[N]``, and, with ids, ``ids``, int64 ``[N]``; in order of arrival, with repeats.
        """
        state = {"values": np.concatenate([np.empty(0), *self._values])}
        if self._ids:
            state["ids"] = np.concatenate(self._ids)
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> Mean:
        """Return the accumulator whose `state` this is (a dict, or what ``np.load`` returns).

        Raises:
            ValueError: If it is no such state.
        """
        if "values" not in state:
            raise ValueError("from_state: expected 'values' and perhaps 'ids', as Mean.state returns them.")
        mean = cls()
        if len(state["values"]):
            mean.update(state["values"], state.get("ids"))
        return mean

    @property
    def values(self) -> np.ndarray:
        """All values, float64 ``[N]``, NaN included: by increasing id, or in order of arrival without ids."""
        values = np.concatenate([np.empty(0), *self._values])
        if self._ids:
            _, first = np.unique(np.concatenate(self._ids), return_index=True)
            values = values[first]
        return values

    def interval(
        self,
        level: float = 0.95,
        *,
        rng: np.random.Generator,
        method: IntervalMethod = "bca",
        resamples: int = RESAMPLES,
    ) -> tuple[float, float]:
        """Return a bootstrap interval of the mean over the scored images: `metrics.bootstrap.mean_interval`.

        The same ``rng`` gives the same interval for any order and sharding. It takes about a second for 100,000 images
        and 2,000 resamples.
        """
        values = self.values
        return mean_interval(values[~np.isnan(values)], level, rng, method=method, resamples=resamples)

    def summary(
        self,
        *,
        interval: float | None = None,
        rng: np.random.Generator | None = None,
        method: IntervalMethod = "bca",
        resamples: int = RESAMPLES,
    ) -> dict[str, float | int]:
        """Return ``mean``, ``stderr``, ``n`` (scored) and ``skipped``; with ``interval`` also ``low`` and ``high``.

        ``stderr`` is the sample standard deviation (ddof 1) over ``sqrt(n)``. What does not exist (the mean
        of nothing, the standard error of one value) is NaN.

        Args:
            interval: Level of a bootstrap interval, e.g. 0.95; ``None`` for none.
            rng: Source of its draws; required with ``interval``.
            method: As in `interval`.
            resamples: As in `interval`.

        Raises:
            ValueError: If ``interval`` comes without ``rng``.
        """
        values = self.values
        scored = values[~np.isnan(values)]
        n = len(scored)
        mean = math.fsum(scored) / n if n else math.nan
        stderr = math.sqrt(math.fsum((scored - mean) ** 2) / (n - 1) / n) if n > 1 else math.nan
        facts: dict[str, float | int] = {"mean": mean, "stderr": stderr, "n": n, "skipped": len(values) - n}
        if interval is None:
            return facts
        if rng is None:
            raise ValueError("rng: expected a numpy.random.Generator for an interval, got None.")
        low, high = self.interval(interval, rng=rng, method=method, resamples=resamples)
        return facts | {"low": low, "high": high}
