"""Laws of one factor: uniform between bounds, or one of some values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from multiobj_data.errors import UsageError
from multiobj_data.factors.laws import LARGEST, Number, Values, column, plain_number, rows_among


@dataclass(frozen=True)
class Uniform:
    """Numbers, or vectors of ``d`` numbers, uniform between two bounds.

    Args:
        name: Factor.
        low: Lowest value, or one for each of ``d`` axes.
        high: Highest value, likewise; not below ``low``.

    Raises:
        UsageError: Bounds are out of order, of different lengths, or no numbers.
    """

    name: str
    low: Number
    high: Number

    def __post_init__(self) -> None:
        low, high = plain_number(self.name, self.low), plain_number(self.name, self.high)
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)
        if np.shape(low) != np.shape(high) or not np.less_equal(low, high).all():
            raise UsageError(
                f"{self.name}: expected two bounds of one length in increasing order, got {low}, {high}."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The factor's name."""
        return (self.name,)

    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)

    def sample(self, rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
        """Return float32 ``[n]`` or ``[n, d]``."""
        low, high = self._bounds()
        share = rng.random(
            (n, *np.shape(low)), dtype=np.float32
        )  # at most 1 - 2**-24: no rounding past `high`
        return {self.name: share * (high - low) + low}

    def contains(self, values: Values) -> np.ndarray:
        """Return which rows lie between the bounds, both included (to float32)."""
        low, high = self._bounds()
        with np.errstate(over="ignore"):
            found = column(values, self.name, np.shape(low)).astype(np.float32)
        inside = (found >= low) & (found <= high)
        return np.logical_and.reduce(inside, -1) if np.shape(low) else inside


@dataclass(frozen=True)
class Choice:
    """One of some numbers or vectors.

    Args:
        name: Factor.
        values: Numbers, or tuples of ``d`` numbers. All whole (``int``): drawn as int16; else as float32.
        weights: How often each comes, relative to the others; ``None``: equally often.

    Raises:
        UsageError: No values, one value twice, vectors of different lengths, or weights that do not fit.
    """

    name: str
    values: tuple[Number, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        plain = tuple(plain_number(self.name, value) for value in self.values)
        if not plain:
            raise UsageError(f"{self.name}: expected at least one value to choose from, got none.")
        if len({np.shape(value) for value in plain}) > 1:
            raise UsageError(f"{self.name}: expected values of one length, got {_short(plain)}.")
        if len(set(plain)) < len(plain):
            raise UsageError(
                f"{self.name}: expected each value once (weights make one frequent): {_short(plain)}."
            )
        object.__setattr__(self, "values", plain)
        object.__setattr__(self, "weights", checked_weights(self.name, self.weights, len(plain)))
        table = np.array(plain)
        if table.dtype.kind == "i" and np.abs(table).max() > np.iinfo(np.int16).max:
            raise UsageError(
                f"{self.name}: expected whole numbers within ±32,767 (int16), got {_short(plain)}."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The factor's name."""
        return (self.name,)

    def _table(self) -> np.ndarray:
        table = np.array(self.values)
        return table.astype(np.int16 if table.dtype.kind == "i" else np.float32)  # [m] or [m, d]

    def sample(self, rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
        """Return int16 or float32, ``[n]`` or ``[n, d]``."""
        return {self.name: self._table()[pick(rng, n, len(self.values), self.weights)]}

    def contains(self, values: Values) -> np.ndarray:
        """Return which rows are one of the values (to float32)."""
        table = self._table()  # [m] or [m, d]
        found = column(values, self.name, table.shape[1:])
        if table.ndim == 1:
            table, found = table[:, None], found[..., None]
        return rows_among(found, table)


def checked_weights(name: str, weights: Iterable[float] | None, n: int) -> tuple[float, ...] | None:
    """Return ``n`` weights above 0 as plain numbers; ``None`` stays.

    Raises:
        UsageError: There are not ``n``, or one is not above 0.
    """
    if weights is None:
        return None
    plain = tuple(float(weight) for weight in weights)
    if len(plain) != n or not all(0 < weight <= LARGEST for weight in plain):
        raise UsageError(
            f"{name}: expected {n} weights above 0 (leave out what shall not come), got {_short(plain)}."
        )
    return plain


def pick(rng: np.random.Generator, n: int, m: int, weights: tuple[float, ...] | None) -> np.ndarray:
    """Return ``n`` indices below ``m``, int64."""
    if weights is None:
        return rng.integers(m, size=n)
    edges = np.cumsum(weights)
    return np.searchsorted(edges / edges[-1], rng.random(n), side="right")  # the last edge is exactly 1


def _short(values: tuple) -> str:
    text = ", ".join(map(str, values[:6]))
    return f"{text}, ..." if len(values) > 6 else text
