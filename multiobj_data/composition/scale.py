"""How large objects are: a fixed factor, a range, or the normal divisor of the Multi-MNIST literature."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from multiobj_data.errors import UsageError, quoted

_SPREAD = 4.0  # the divisor is cut this many standard deviations from its mean, so that sides are bounded
_NUMBER = r"([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)"
_LARGEST = 1000  # factor: far beyond any canvas


@dataclass(frozen=True)
class Scale:
    """A distribution over the side of a patch, written as text.

    Args:
        text: ``"0.75"``: always this factor, ``side = round(0.75 * size)``. ``"0.6..0.9"``: factor uniform in
            the range. ``"divisor:1.3,0.1"``: ``side = int(size / s)`` with s normal of this mean and standard
            deviation (as `observations`, Pyro and SuPAIR do; AIR report, data), cut at 4 standard deviations.
    """

    text: str

    def __post_init__(self) -> None:
        low, high = self._range()
        if not 0 < low <= high <= _LARGEST:
            raise UsageError(
                f"scale: expected factors above 0 and up to {_LARGEST:,}, in increasing order, got {quoted(self.text)}."
            )

    def _parse(self) -> tuple[str, float, float]:
        if match := re.fullmatch(_NUMBER, self.text):
            return "range", float(match[1]), float(match[1])
        if match := re.fullmatch(rf"{_NUMBER}\.\.{_NUMBER}", self.text):
            return "range", float(match[1]), float(match[2])
        if match := re.fullmatch(rf"divisor:{_NUMBER},{_NUMBER}", self.text):
            return "divisor", float(match[1]), float(match[2])
        raise UsageError(f"scale: expected '0.75', '0.6..0.9' or 'divisor:1.3,0.1', got {quoted(self.text)}.")

    def _range(self) -> tuple[float, float]:
        kind, a, b = self._parse()
        if kind == "range":
            return a, b
        low, high = a - _SPREAD * b, a + _SPREAD * b
        if b < 0 or low <= 0:
            raise UsageError(
                f"scale: expected a divisor whose mean is more than {_SPREAD:g} deviations above 0, got mean {a:g} and "
                f"deviation {b:g}."
            )
        return 1 / high, 1 / low

    def sides(self, size: int) -> range:
        """Return every side that can come out for patches of ``size`` pixels."""
        kind, a, b = self._parse()
        if kind == "divisor":  # divided as in `draw`: the same numbers by another way round to other sides
            return range(max(int(size / (a + _SPREAD * b)), 1), max(int(size / (a - _SPREAD * b)), 1) + 1)
        return range(max(round(size * a), 1), max(round(size * b), 1) + 1)

    def draw(self, rng: np.random.Generator, n: int, size: int) -> np.ndarray:
        """Return the sides of ``n`` patches, int64 ``[n]`` in pixels."""
        kind, a, b = self._parse()
        if kind == "range":
            factor = np.full(n, a) if a == b else rng.uniform(a, b, n)
            return np.maximum(np.rint(size * factor), 1).astype(np.int64)
        divisor = np.clip(rng.normal(a, b, n), a - _SPREAD * b, a + _SPREAD * b)
        return np.maximum((size / divisor).astype(np.int64), 1)
