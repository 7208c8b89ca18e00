"""What a law of factors is, in code: its interface, the check of its contract, and how values are compared."""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Mapping
from numbers import Integral
from typing import Any, Protocol, TypeAlias

import numpy as np

from multiobj_data.errors import UsageError

Values: TypeAlias = Mapping[str, np.ndarray]
Number: TypeAlias = float | tuple[float, ...]

TOLERANCE = 1e-6  # equal numbers differ by less, relative to max(1, size): stored factors are float32
LARGEST = 1e30  # well within float32, and so are differences
_NUMBER = re.compile(r"([+-]?)(\d+(?:\.\d+)?(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?)?(pi)?", re.ASCII)


class Condition(Protocol):
    """Anything that says of values whether they are inside: a law, or a region."""

    @property
    def names(self) -> tuple[str, ...]:
        """The factors that it speaks of."""

    def contains(self, values: Values) -> np.ndarray:
        """Return which rows are inside, bool ``[n]``."""


class Law(Protocol):
    """A distribution over named factors with bounded support; frozen and hashable.

    ``law.contains(law.sample(rng, n)).all()`` holds for every law; `check_law` tests the whole contract.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """The factors that it draws."""

    def sample(self, rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
        """Return ``n`` independent rows: each factor ``[n]`` or ``[n, d]``, float32 or int16, for ``n = 0`` too."""

    def contains(self, values: Values) -> np.ndarray:
        """Return which rows can be drawn, bool ``[n]``; other factors in ``values`` are ignored, NaN is outside."""


def parse_number(text: str) -> float:
    """Return the number written as ``"0.5"``, ``"-1"``, ``"1e-3"``, ``"pi"`` or ``"0.5pi"``.

    Raises:
        ValueError: It is none of these, or too large for float32.
    """
    match = _NUMBER.fullmatch(text.strip())
    if not match or not (match[2] or match[3]):
        raise ValueError(f"no number: {text!r}")
    number = float(match[1] + (match[2] or "1")) * (math.pi if match[3] else 1.0)
    if abs(number) > LARGEST:
        raise ValueError(f"too large: {text!r}")
    return number


def column(values: Values, name: str, shape: tuple[int, ...] = ()) -> np.ndarray:
    """Return the values of one factor, ``[n, *shape]``.

    Raises:
        UsageError: There are none, or they have another shape.
    """
    if name not in values:
        raise UsageError(f"expected values of {name!r}, got {', '.join(map(repr, values)) or 'none'}.")
    found = np.asarray(values[name])
    if found.ndim <= len(shape) or found.shape[found.ndim - len(shape) :] != shape:
        expected = f"[n, {shape[0]}]" if shape else "[n]"
        raise UsageError(f"{name}: expected values of shape {expected}, got {list(found.shape)}.")
    return found


def close(found: np.ndarray, value: Any) -> np.ndarray:
    """Return where numbers equal ``value`` to float32, bool of the broadcast shape; NaN equals nothing."""
    value = np.asarray(value, np.float64)
    return np.abs(found - value) <= TOLERANCE * np.maximum(1, np.abs(value))


def rows_among(found: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return which rows ``[n, d]`` equal a row of the table ``[m, d]``, bool ``[n]``, in time n log m."""
    inside = np.ones(found.shape[:-1], bool)
    code, codes = (
        np.zeros(inside.shape, np.int64),
        np.zeros(len(table), np.int64),
    )  # rows so far, as one number
    for axis in range(table.shape[1]):
        levels, index = np.unique(table[:, axis], return_inverse=True)
        nearest = _nearest(levels, found[..., axis])
        inside &= close(found[..., axis], levels[nearest])
        prefixes, codes = np.unique(codes * len(levels) + index, return_inverse=True)
        wanted = code * len(levels) + nearest
        code = _nearest(prefixes, wanted)
        inside &= prefixes[code] == wanted
    return inside


def _nearest(levels: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return the index of the nearest of sorted levels."""
    return np.searchsorted((levels[1:] + levels[:-1].astype(np.float64)) / 2, found)


def plain_number(name: str, value: Any) -> Number:
    """Return one number as int or float, or several as a tuple of floats or ints: hashable and equal by value."""
    if isinstance(value, tuple | list | np.ndarray) and np.ndim(value) == 1 and len(value):
        return tuple(plain_number(name, item) for item in value)  # type: ignore[misc]
    try:
        number = int(value) if isinstance(value, Integral) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, str | bool) or not abs(number) <= LARGEST:
        raise UsageError(f"{name}: expected a number or a tuple of numbers, got {value!r}.")
    return number


def no_rows(law: Law) -> dict[str, np.ndarray]:
    """Return no rows of a law, to see shapes and dtypes."""
    return law.sample(np.random.default_rng(0), 0)


def check_law(law: Law) -> None:
    """Test everything that `Law` says of a law; call it on your own.

    Raises:
        AssertionError: With a sentence that says what does not hold.
    """
    _require(
        hash(law) == hash(pickle.loads(pickle.dumps(law))), "a law is hashable by value and can be pickled"
    )
    _require(pickle.loads(pickle.dumps(law)) == law, "a law equals its copy")
    before = repr(np.random.get_state())  # noqa: NPY002
    kinds = {name: (values.dtype, values.shape[1:]) for name, values in no_rows(law).items()}
    _require(tuple(kinds) == law.names, f"a sample has the law's names {law.names}, got {tuple(kinds)}")
    for n in (0, 1, 1000):
        _check_sample(law, n, kinds)
    _require(repr(np.random.get_state()) == before, "the global random state is left alone")  # noqa: NPY002
    _check_outside(law)


def _check_sample(law: Law, n: int, kinds: Mapping[str, tuple[np.dtype, tuple[int, ...]]]) -> None:
    values, again = (law.sample(np.random.default_rng(n), n) for _ in range(2))
    for name, (dtype, shape) in kinds.items():
        found = values[name]
        _require(found.shape == (n, *shape), f"{name!r} has shape {(n, *shape)}, got {found.shape}")
        _require(found.dtype == dtype and dtype.kind in "if", f"{name!r} is always of one number type")
        _require(bool(np.isfinite(found).all()), f"{name!r} is finite")
        _require(np.array_equal(found, again[name]), f"equal streams give equal {name!r}")
    inside = law.contains({**values, "another factor": np.zeros(n)})
    _require(inside.dtype == bool and inside.shape == (n,), f"`contains` returns bool [{n}]")
    _require(bool(inside.all()), "a law contains what it draws")


def _check_outside(law: Law) -> None:
    """Test that rows with one factor far off, or missing, are outside."""
    values = law.sample(np.random.default_rng(1), 10)
    for name, found in values.items():
        far = {**values, name: found.astype(np.float64) + 1e9}
        _require(not law.contains(far).any(), f"a row with {name!r} 1e9 too large is outside")
        missing = {**values, name: np.full(found.shape, np.nan)}
        _require(not law.contains(missing).any(), f"a row with {name!r} NaN is outside")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(f"expected that {what}.")
