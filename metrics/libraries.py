"""What metrics share: the library of an array, a safe ratio, and checks of plain numbers among the arguments."""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from multiobj_data.arrays import Array, as_double, is_tensor


def library_of(array: Array) -> Any:
    """Return ``torch`` for a tensor, else ``numpy``, for the calls that both have; torch is never imported here."""
    return sys.modules["torch"] if is_tensor(array) else np


def ratio(part: Array, whole: Array, nothing: float) -> Array:
    """Return ``part / whole`` in float64, and ``nothing`` where the whole is 0."""
    where = library_of(part).where
    whole = as_double(whole, part)
    return where(whole == 0, nothing, part / where(whole == 0, 1.0, whole))


def is_finite(value: object) -> bool:
    """Tell whether ``value`` is a plain finite number (and no bool)."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: object, low: int) -> bool:
    """Tell whether ``value`` is a whole number (and no bool) of at least ``low``."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= low


def whole_numbers(name: str, values: Sequence[int]) -> tuple[int, ...]:
    """Return labels that an argument lists; raise ``ValueError`` if they are not a sequence of whole numbers."""
    try:
        found = tuple(int(value) for value in values)
        if all(value == given for value, given in zip(found, values, strict=True)):
            return found
    except (TypeError, ValueError):
        pass
    raise ValueError(f"{name}: expected a sequence of whole numbers, as in (0,), got {values!r}.")
