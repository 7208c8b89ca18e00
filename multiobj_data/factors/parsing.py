"""Laws of numbers as text: ``0.5..1``, ``0.5..1/6``, ``0.5,0.6,1``, ``0.5:2,1:1``."""

from __future__ import annotations

from functools import cache

import numpy as np

from multiobj_data.errors import UsageError, quoted
from multiobj_data.factors.laws import Law, parse_number
from multiobj_data.factors.single import Choice, Uniform


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
