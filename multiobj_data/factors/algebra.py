"""Laws combine like sets: side by side, mixed, without a region, or within it alone.

A hold-out is so written once and used twice: ``Minus(law, region)`` trains, ``Only(law, region)`` tests. The idea is
that of Spriteworld's factor distributions (Watters et al. 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from multiobj_data.errors import InfeasibleError, UsageError
from multiobj_data.factors.laws import Condition, Law, Values, no_rows
from multiobj_data.factors.single import checked_weights, pick

_RAREST = 100_000  # a hold-out that leaves fewer than one candidate in so many leaves nothing
_LARGEST_BATCH = 65_536  # candidates drawn at a time, so that rare regions do not fill the memory


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
        object.__setattr__(
            self, "weights", checked_weights("a mixture of laws", self.weights, len(self.laws))
        )
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
        picked = pick(rng, n, len(self.laws), self.weights)
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
class _Conditioned:
    """A law, and a region or another law that says which of its values may come."""

    law: Law
    other: Condition

    def __post_init__(self) -> None:
        _check_known(self.law, self.other)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the law."""
        return self.law.names


@dataclass(frozen=True)
class Minus(_Conditioned):
    """A law without the values inside a region or another law: rows inside are drawn anew.

    Raises:
        UsageError: ``other`` speaks of a factor that ``law`` does not draw.
        InfeasibleError: On sampling, where fewer than 1 in 100,000 candidates remain.
    """

    def sample(self, rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
        """Return ``n`` rows of the law that are outside."""
        return _reject(self.law, rng, n, lambda values: ~self.other.contains(values))

    def contains(self, values: Values) -> np.ndarray:
        """Return which rows the law contains and the other does not."""
        return self.law.contains(values) & ~self.other.contains(values)


@dataclass(frozen=True)
class Only(_Conditioned):
    """A law within a region or another law: only rows inside are kept.

    Raises:
        UsageError: ``other`` speaks of a factor that ``law`` does not draw.
        InfeasibleError: On sampling, where fewer than 1 in 100,000 candidates remain.
    """

    def sample(self, rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
        """Return ``n`` rows of the law that are inside."""
        return _reject(self.law, rng, n, self.other.contains)

    def contains(self, values: Values) -> np.ndarray:
        """Return which rows both contain."""
        return self.law.contains(values) & self.other.contains(values)


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


def _kinds(kinds: Mapping[str, tuple[np.dtype, tuple[int, ...]]]) -> str:
    return ", ".join(
        f"{name} {dtype}{['n', *shape[1:]]}".replace("'", "") for name, (dtype, shape) in kinds.items()
    )
