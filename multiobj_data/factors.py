"""Laws of factors: where shapes, scales, positions and colours come from, and which values can come out.

A law draws named values and says of any values whether it could have drawn them. Laws combine like sets, so that a
hold-out is written once and used twice: ``Minus(law, region)`` trains, ``Only(law, region)`` tests. The idea is that
of Spriteworld's factor distributions (Watters et al. 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from multiobj_data.errors import InfeasibleError, UsageError, quoted
from multiobj_data.laws import (
    LARGEST,
    Condition,
    Law,
    Number,
    Values,
    check_law,
    column,
    no_rows,
    parse_number,
    plain_number,
    rows_among,
)

__all__ = [
    "Choice",
    "Condition",
    "Law",
    "Minus",
    "Mixture",
    "Only",
    "Product",
    "Uniform",
    "Values",
    "check_law",
    "parse_law",
]

_RAREST = 100_000  # a hold-out that leaves fewer than one candidate in so many leaves nothing
_LARGEST_BATCH = 65_536  # candidates drawn at a time, so that rare regions do not fill the memory


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
        object.__setattr__(self, "weights", _weights(self.name, self.weights, len(plain)))
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
        return {self.name: self._table()[_pick(rng, n, len(self.values), self.weights)]}

    def contains(self, values: Values) -> np.ndarray:
        """Return which rows are one of the values (to float32)."""
        table = self._table()  # [m] or [m, d]
        found = column(values, self.name, table.shape[1:])
        if table.ndim == 1:
            table, found = table[:, None], found[..., None]
        return rows_among(found, table)


@dataclass(frozen=True)
class Product:
    """Independent laws of different factors, side by side.

    Raises:
        UsageError: A factor is drawn by two laws, or there is no law.
    """

    laws: tuple[Law, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "laws", tuple(self.laws))
        if not self.laws:
            raise UsageError("a product of laws: expected at least one law, got none.")
        twice = [name for i, name in enumerate(self.names) if name in self.names[:i]]
        if twice:
            raise UsageError(f"a product of laws: {twice[0]!r} is drawn by two of them; keep one.")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all laws."""
        return tuple(name for law in self.laws for name in law.names)

    def sample(self, rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
        """Return the factors of all laws, drawn in their order."""
        return {name: values for law in self.laws for name, values in law.sample(rng, n).items()}

    def contains(self, values: Values) -> np.ndarray:
        """Return which rows every law contains."""
        return np.logical_and.reduce([law.contains(values) for law in self.laws])


@dataclass(frozen=True)
class Mixture:
    """One of several laws of the same factors, picked anew for every row.

    Args:
        laws: Laws with the same names, shapes and dtypes.
        weights: How often each law is picked, relative to the others; ``None``: equally often.

    Raises:
        UsageError: The laws draw different factors, or weights do not fit.
    """

    laws: tuple[Law, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "laws", tuple(self.laws))
        if not self.laws:
            raise UsageError("a mixture of laws: expected at least one law, got none.")
        object.__setattr__(self, "weights", _weights("a mixture of laws", self.weights, len(self.laws)))
        first, *others = ({k: (v.dtype, v.shape) for k, v in no_rows(law).items()} for law in self.laws)
        for other in others:
            if other != first:
                raise UsageError(
                    f"a mixture of laws: expected laws of the same factors, shapes and dtypes, got {_kinds(first)}"
                    f" and {_kinds(other)}."
                )

    @property
    def names(self) -> tuple[str, ...]:
        """The names that all laws share."""
        return self.laws[0].names

    def sample(self, rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
        """Return ``n`` rows, each from one law."""
        picked = _pick(rng, n, len(self.laws), self.weights)
        drawn = {name: np.empty((n, *v.shape[1:]), v.dtype) for name, v in no_rows(self.laws[0]).items()}
        for index, law in enumerate(self.laws):
            rows = np.flatnonzero(picked == index)
            for name, values in law.sample(rng, len(rows)).items():
                drawn[name][rows] = values
        return drawn

    def contains(self, values: Values) -> np.ndarray:
        """Return which rows some law contains."""
        return np.logical_or.reduce([law.contains(values) for law in self.laws])


@dataclass(frozen=True)
class Minus:
    """A law without the values inside a region or another law: rows inside are drawn anew.

    Raises:
        UsageError: ``other`` speaks of a factor that ``law`` does not draw.
        InfeasibleError: On sampling, where fewer than 1 in 100,000 candidates remain.
    """

    law: Law
    other: Condition

    def __post_init__(self) -> None:
        _check_known(self.law, self.other)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the law."""
        return self.law.names

    def sample(self, rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
        """Return ``n`` rows of the law that are outside."""
        return _reject(self.law, rng, n, lambda values: ~self.other.contains(values))

    def contains(self, values: Values) -> np.ndarray:
        """Return which rows the law contains and the other does not."""
        return self.law.contains(values) & ~self.other.contains(values)


@dataclass(frozen=True)
class Only:
    """A law within a region or another law: only rows inside are kept.

    Raises:
        UsageError: ``other`` speaks of a factor that ``law`` does not draw.
        InfeasibleError: On sampling, where fewer than 1 in 100,000 candidates remain.
    """

    law: Law
    other: Condition

    def __post_init__(self) -> None:
        _check_known(self.law, self.other)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the law."""
        return self.law.names

    def sample(self, rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
        """Return ``n`` rows of the law that are inside."""
        return _reject(self.law, rng, n, self.other.contains)

    def contains(self, values: Values) -> np.ndarray:
        """Return which rows both contain."""
        return self.law.contains(values) & self.other.contains(values)


@cache
def parse_law(name: str, text: str) -> Law:
    """Return the law of a number that a text describes; it always draws float32.

    Args:
        name: Factor.
        text: ``"0.5..1"``: uniform. ``"0.5..1/6"``: one of six evenly spaced values, both ends included.
            ``"0.5,0.6,1"``: one of these. ``"0.75"``: always this. ``"0.5:2,1:1"``: the first twice as often.
            Numbers may hold pi: ``"0..2pi/40"``, ``"pi"``, ``"0.5pi"``.

    Raises:
        UsageError: The text is none of these.
    """
    try:
        return _range_law(name, text) if ".." in text else _choice_law(name, text)
    except ValueError:
        raise UsageError(
            f"{name}: expected '0.75', '0.5..1', '0.5..1/6' (six values), '0.5,0.6,1' or '0.5:2,1:1' (weights),"
            f" numbers with or without pi as in '0.5pi', got {quoted(text)}."
        ) from None


def _range_law(name: str, text: str) -> Law:
    low_text, _, rest = text.partition("..")
    high_text, slash, count_text = rest.partition("/")
    low, high = parse_number(low_text), parse_number(high_text)
    if not slash:
        return Uniform(name, low, high)
    count = int(count_text)
    if not 2 <= count <= 10_000 or not low < high:
        raise UsageError(
            f"{name}: expected 2 to 10,000 values between two increasing bounds, got {quoted(text)}."
        )
    return Choice(name, tuple(np.linspace(low, high, count).tolist()))


def _choice_law(name: str, text: str) -> Law:
    parts = [part.split(":") for part in text.split(",")]
    if len({len(part) for part in parts}) > 1 or len(parts[0]) > 2:
        raise ValueError("a weight for every value, or for none")
    values = tuple(parse_number(part[0]) for part in parts)
    return Choice(
        name, values, tuple(parse_number(part[1]) for part in parts) if len(parts[0]) == 2 else None
    )


def _weights(name: str, weights: Iterable[float] | None, n: int) -> tuple[float, ...] | None:
    if weights is None:
        return None
    plain = tuple(float(weight) for weight in weights)
    if len(plain) != n or not all(0 < weight <= LARGEST for weight in plain):
        raise UsageError(
            f"{name}: expected {n} weights above 0 (leave out what shall not come), got {_short(plain)}."
        )
    return plain


def _pick(rng: np.random.Generator, n: int, m: int, weights: tuple[float, ...] | None) -> np.ndarray:
    """Return ``n`` indices below ``m``, int64."""
    if weights is None:
        return rng.integers(m, size=n)
    edges = np.cumsum(weights)
    return np.searchsorted(edges / edges[-1], rng.random(n), side="right")  # the last edge is exactly 1


def _check_known(law: Law, other: Condition) -> None:
    for name in other.names:
        if name not in law.names:
            raise UsageError(
                f"the hold-out speaks of {name!r}, which is not drawn here: {', '.join(law.names)}."
            )


def _reject(
    law: Law, rng: np.random.Generator, n: int, keep: Callable[[Values], np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the first ``n`` rows of the law that are to be kept: exact draws from the law given the condition."""
    parts = [no_rows(law)]
    drawn = kept = 0
    size = n
    while kept < n:
        batch = law.sample(rng, size)
        good = keep(batch)
        parts.append({name: values[good] for name, values in batch.items()})
        drawn, kept = drawn + size, kept + int(good.sum())
        if kept < n and drawn >= 10 * _RAREST and kept * _RAREST < drawn:  # ten expected: one would be luck
            raise InfeasibleError(
                f"the hold-out leaves nothing to draw: of {drawn:,} candidates {kept} remain; widen what is left of"
                f" {', '.join(law.names)}."
            )
        rare = (drawn + 1) / (kept + 1)
        size = min(int(1.2 * rare * (n - kept)) + 16, max(n, _LARGEST_BATCH))
    return {name: np.concatenate([part[name] for part in parts])[:n] for name in parts[0]}


def _short(values: tuple) -> str:
    text = ", ".join(map(str, values[:6]))
    return f"{text}, ..." if len(values) > 6 else text


def _kinds(kinds: Mapping[str, tuple[np.dtype, tuple[int, ...]]]) -> str:
    return ", ".join(
        f"{name} {dtype}{['n', *shape[1:]]}".replace("'", "") for name, (dtype, shape) in kinds.items()
    )
