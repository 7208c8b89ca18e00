"""Hold-outs as text: which combinations of factors a split leaves out, or has alone.

``"shape=heart & colour=red | scale=0.5..0.6"``: red hearts, and everything small. ``&`` binds before ``|``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from multiobj_data.errors import UsageError, did_you_mean, quoted
from multiobj_data.factors.colours import COLOUR_WORDS, colour_code, in_gamut
from multiobj_data.factors.laws import TOLERANCE, Values, column, parse_number

Words: TypeAlias = Mapping[str, int]
Vocabulary: TypeAlias = Mapping[str, Words | None]

_EXAMPLE = "'shape=heart & colour=red | scale=0.5..0.6'"
_TERM = re.compile(r"\s*(\w[\w-]*)\s*(!?=)\s*([^=!<>]+?)\s*")


@dataclass(frozen=True)
class Span:
    """Numbers from ``low`` to ``high``, both included; ``word`` names the one code that it holds."""

    low: float
    high: float
    word: str | None = None

    def contains(self, found: np.ndarray) -> np.ndarray:
        """Return where numbers lie inside (to float32), bool of the same shape."""
        low = self.low - TOLERANCE * max(1, abs(self.low))
        high = self.high + TOLERANCE * max(1, abs(self.high))
        return (found >= low) & (found <= high)

    def __str__(self) -> str:
        if self.word is not None:
            return self.word
        low, high = _show(self.low), _show(self.high)
        return low if self.low == self.high else f"{low}..{high}"


@dataclass(frozen=True)
class Term:
    """One factor inside, or ``negated`` outside, some spans; ``colour``: its words are those of colours."""

    name: str
    negated: bool
    spans: tuple[Span, ...]
    colour: bool = False

    def contains(self, values: Values) -> np.ndarray:
        """Return which rows agree; a row without a value (NaN) agrees with neither ``=`` nor ``!=``."""
        found = np.asarray(values.get(self.name, ()))
        if self.colour and found.dtype.kind == "f" and found.ndim > 1 and found.shape[-1] == 3:
            found = _codes_of(found)  # RGB [n, 3] -> [n]
        found = column({**values, self.name: found} if self.name in values else values, self.name)
        inside = np.logical_or.reduce([span.contains(found) for span in self.spans])
        return ~inside & ~np.isnan(found) if self.negated else inside

    def __str__(self) -> str:
        return f"{self.name}{'!=' if self.negated else '='}{','.join(map(str, self.spans))}"


@dataclass(frozen=True)
class Region:
    """A set of rows of factors: some clause holds, and in it every term. Make one with `Region.parse`."""

    clauses: tuple[tuple[Term, ...], ...]

    @classmethod
    def parse(cls, text: str, vocabulary: Vocabulary) -> Region:
        """Read a region.

        Args:
            text: Terms ``name=spec`` or ``name!=spec`` joined by ``&`` and ``|``; a spec is a comma list of words,
                numbers and ranges ``lo..hi`` (both included), numbers with or without pi. Spaces are free; there
                are no parentheses.
            vocabulary: Every known factor: its words with their codes, or ``None`` for a factor of numbers. Codes
                can also be written as numbers.

        Raises:
            UsageError: The text is malformed, or a factor, word or code is unknown.
        """
        if "(" in text or ")" in text:
            raise UsageError(
                f"hold-out: parentheses are not supported, got {quoted(text)}; '&' binds before '|', so write "
                "'a=1 & c=3 | b=2 & c=3' for c=3 with a=1 or b=2."
            )
        return cls(tuple(_clause(part, text, vocabulary) for part in text.split("|")))

    @property
    def names(self) -> tuple[str, ...]:
        """The factors that it speaks of, in order of appearance."""
        return tuple(dict.fromkeys(term.name for clause in self.clauses for term in clause))

    def contains(self, values: Values) -> np.ndarray:
        """Return which rows are inside.

        Args:
            values: Every factor of `names`, numbers ``[n]``; a factor with colour words may be RGB float ``[n, 3]``,
                which is named by `colours.colour_code`. Other shapes ``[...]`` work alike. Of the factors of
                `Scenes`, ``[B, K]``, only the places of objects that are present mean something: whole numbers have
                no way to say that there is none.

        Returns:
            Bool ``[n]``.

        Raises:
            UsageError: A factor is missing or has another shape.
        """
        clauses = [
            np.logical_and.reduce([term.contains(values) for term in clause]) for clause in self.clauses
        ]
        return np.logical_or.reduce(clauses)

    def __str__(self) -> str:
        return " | ".join(" & ".join(map(str, clause)) for clause in self.clauses)


def _codes_of(rgb: np.ndarray) -> np.ndarray:
    """Return codes of colours, float, NaN where there is no colour."""
    real = in_gamut(rgb)
    return np.where(real, colour_code(np.where(real[..., None], rgb, 0)), np.nan)


def _clause(text: str, whole: str, vocabulary: Vocabulary) -> tuple[Term, ...]:
    return tuple(_term(part, whole, vocabulary) for part in text.split("&"))


def _term(text: str, whole: str, vocabulary: Vocabulary) -> Term:
    match = _TERM.fullmatch(text)
    if not match:
        raise UsageError(
            f"hold-out: expected terms name=value or name!=value joined by '&' and '|', as in {_EXAMPLE}, "
            f"got {quoted(text.strip())} in {quoted(whole)}."
        )
    name, sign, spec = match.groups()
    if name not in vocabulary:
        raise UsageError(f"hold-out: no factor is called {quoted(name)}.{_factor_hint(name, vocabulary)}")
    words = vocabulary[name]
    spans = tuple(_span(name, item.strip(), words) for item in spec.split(","))
    colour = words is not None and words.items() <= COLOUR_WORDS.items()
    return Term(name, sign == "!=", spans, colour)


def _span(name: str, text: str, words: Words | None) -> Span:
    if words is not None and text in words:
        return _code_span(name, words[text], words)
    low_text, dots, high_text = text.partition("..")
    try:
        low = parse_number(low_text)
        high = parse_number(high_text) if dots else low
    except ValueError:
        raise UsageError(_no_value(name, text, words)) from None
    if low > high:
        raise UsageError(f"hold-out: expected a range in increasing order, got {name}={text[:80]}.")
    if words is None:
        return Span(low, high)
    if not dots:
        return _code_span(name, low, words)
    if not any(low <= code <= high for code in words.values()):
        raise UsageError(f"hold-out: no {name} has a code in {text[:80]}; codes: {_codes(words)}.")
    return Span(low, high)


def _code_span(name: str, code: float, words: Words) -> Span:
    for word, known in words.items():
        if known == code:
            return Span(known, known, word)
    raise UsageError(f"hold-out: no {name} has the code {_show(code)}; codes: {_codes(words)}.")


def _no_value(name: str, text: str, words: Words | None) -> str:
    if words is None:
        return f"hold-out: {name} takes numbers and ranges such as 0.5, 0.5..0.6 or 0..0.5pi, got {quoted(text)}."
    if ".." in text:
        codes = _codes(words)
        return f"hold-out: a range of {name} is written in codes ({codes}), got {quoted(text)}; or list the words."
    return f"hold-out: no {name} is called {quoted(text)}.{_hint(text, words)}"


def _factor_hint(name: str, vocabulary: Vocabulary) -> str:
    if f"pos_{name}" in vocabulary:  # as dSprites calls what it draws; what is stored is in pixels
        return f" Did you mean 'pos_{name}', from 0 to 1 over the places allowed (the stored {name} is in pixels)?"
    return _hint(name, vocabulary)


def _hint(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    hint = did_you_mean(name, known)
    return hint if "Known:" in hint or not known else f"{hint} Known: {', '.join(known)}."


def _codes(words: Words) -> str:
    return ", ".join(f"{word} {code}" for word, code in words.items())


def _show(number: float) -> str:
    """Return the shortest text that `parse_number` reads as this number."""
    turned = f"{number / math.pi:g}pi"
    if number and parse_number(turned) == number:
        return turned.replace("1pi", "pi") if abs(number) == math.pi else turned
    return str(int(number)) if number == int(number) and abs(number) < 1e15 else repr(float(number))
