"""Colours of objects: RGB and HSV, nine colour words, and the laws of the factor `colour` (RGB in [0, 1])."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from functools import cache

import numpy as np

from multiobj_data.errors import UsageError, did_you_mean, quoted
from multiobj_data.factors.laws import TOLERANCE, Law, Values, close, column, parse_number
from multiobj_data.factors.single import Choice, Uniform

COLOUR = "colour"  # the factor's name
COLOUR_WORDS: dict[str, int] = {
    "black": 0,
    "grey": 1,
    "white": 2,
    "red": 3,  # from here on hues, one every 60 degrees
    "yellow": 4,
    "green": 5,
    "cyan": 6,
    "blue": 7,
    "magenta": 8,
}
_PALETTE: dict[str, tuple[float, float, float]] = {
    "white": (1.0, 1.0, 1.0),
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
    "yellow": (1.0, 1.0, 0.0),
    "magenta": (1.0, 0.0, 1.0),
    "cyan": (0.0, 1.0, 1.0),
}
_EXAMPLES = (
    "white",
    "grey",
    "grey:0.25..1",
    "hsv",
    "hsv:0..1,0.5..1,0.5..1",
    "rgb",
    "levels:5",
    "named",
    "#ff0000,#00ff00",
)


def hsv_to_rgb(hsv: np.ndarray) -> np.ndarray:
    """Return RGB of hue, saturation and value.

    Args:
        hsv: Floats ``[..., 3]``; hue in turns (it wraps), saturation and value in [0, 1].

    Returns:
        float32 ``[..., 3]`` in [0, 1].

    Raises:
        UsageError: Saturation or value are out of range.
    """
    hsv = _triples(hsv, "HSV", slice(1, 3))
    hue, saturation, value = hsv[..., :1], hsv[..., 1:2], hsv[..., 2:]
    sextant = (np.array([5, 3, 1], np.float32) + 6 * hue) % 6  # [..., 3]: red, green, blue
    dip = np.clip(np.minimum(sextant, 4 - sextant), 0, 1)  # how far each channel is below the value
    return value - value * saturation * dip


def rgb_to_hsv(rgb: np.ndarray) -> np.ndarray:
    """Return hue, saturation and value of RGB.

    Args:
        rgb: Floats ``[..., 3]`` in [0, 1].

    Returns:
        float32 ``[..., 3]``: hue in turns in [0, 1), 0 for greys; saturation, 0 for black; value.

    Raises:
        UsageError: A channel is out of range.
    """
    rgb = _triples(rgb, "RGB", slice(0, 3))
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    value = rgb.max(-1)
    chroma = value - rgb.min(-1)
    divisor = np.where(chroma > 0, chroma, 1)
    turns = np.select(
        [value == red, value == green],
        [(green - blue) / divisor % 6, (blue - red) / divisor + 2],
        (red - green) / divisor + 4,
    )
    hue = (turns / 6).astype(np.float32) % 1  # a hue just below 0 rounds up to 1
    saturation = chroma / np.where(value > 0, value, 1)
    return np.stack([hue, saturation, value], -1)


def colour_code(rgb: np.ndarray) -> np.ndarray:
    """Return which of `COLOUR_WORDS` a colour is called.

    Black where the value is below 0.2; else, where the saturation is below 0.2, white for values above 0.85 and grey
    for others; else the nearest of six hues (red: within 30 degrees of 0).

    Args:
        rgb: Floats ``[..., 3]`` in [0, 1].

    Returns:
        int8 ``[...]``: codes of `COLOUR_WORDS`; -1 where a channel is NaN.

    Raises:
        UsageError: A channel is out of range.
    """
    hsv = rgb_to_hsv(rgb)
    absent = np.isnan(hsv).any(-1)
    hue, saturation, value = np.moveaxis(np.where(absent[..., None], 0, hsv), -1, 0)
    nearest = np.floor(hue * 6 + 0.5) % 6  # 0 red, 1 yellow, ...
    pale = np.where(value > 0.85, COLOUR_WORDS["white"], COLOUR_WORDS["grey"])
    code = np.where(saturation < 0.2, pale, COLOUR_WORDS["red"] + nearest)
    code = np.where(value < 0.2, COLOUR_WORDS["black"], code)
    return np.where(absent, -1, code).astype(np.int8)


@dataclass(frozen=True)
class HSV:
    """Colours uniform in hue, saturation and value.

    Args:
        low: Lowest hue (turns), saturation and value.
        high: Highest ones. A range of hues may go past 0 or 1: reds are -1/12 to 1/12.

    Raises:
        UsageError: Bounds are out of order or range, or hues make more than one turn.
    """

    low: tuple[float, float, float] = (0.0, 0.0, 0.0)
    high: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        box = Uniform(COLOUR, self.low, self.high)
        object.__setattr__(self, "low", box.low)
        object.__setattr__(self, "high", box.high)
        bounds = np.array([self.low, self.high])  # [2, 3]
        tame = bounds.shape == (2, 3) and bounds[:, 1:].min() >= 0 and bounds[:, 1:].max() <= 1
        if not tame or np.abs(bounds[:, 0]).max() > 2 or bounds[1, 0] - bounds[0, 0] > 1:
            raise UsageError(
                "colour: expected a hue of at most one turn, saturation and value in 0..1, "
                f"got {self.low} to {self.high}."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The factor's name."""
        return (COLOUR,)

    def sample(self, rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
        """Return RGB, float32 ``[n, 3]``."""
        return {COLOUR: hsv_to_rgb(Uniform(COLOUR, self.low, self.high).sample(rng, n)[COLOUR])}

    def contains(self, values: Values) -> np.ndarray:
        """Return which colours lie between the bounds; a grey has any hue, black any hue and saturation."""
        rgb = column(values, COLOUR, (3,))
        real = in_gamut(rgb)
        hue, saturation, value = np.moveaxis(rgb_to_hsv(np.where(real[..., None], rgb, 0)), -1, 0)
        slack = 3 * TOLERANCE  # of one trip to RGB and back in float32
        blur = slack / np.maximum(saturation, slack)  # a hue is as exact as its colour is strong
        past = (hue - self.low[0]) % 1  # turns beyond the lowest hue
        inside = (past <= self.high[0] - self.low[0] + blur) | (past >= 1 - blur)
        inside &= (saturation >= self.low[1] - slack) & (saturation <= self.high[1] + slack)
        inside |= value <= 0
        return real & inside & (value >= self.low[2] - slack) & (value <= self.high[2] + slack)


@dataclass(frozen=True)
class Grey:
    """Equal channels, uniform between two brightnesses.

    Raises:
        UsageError: The bounds are not increasing within [0, 1].
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        Uniform(COLOUR, self.low, self.high)
        if np.ndim(self.low) or not 0 <= self.low <= self.high <= 1:
            raise UsageError(f"colour: expected greys between 0 and 1, got {self.low}..{self.high}.")

    @property
    def names(self) -> tuple[str, ...]:
        """The factor's name."""
        return (COLOUR,)

    def sample(self, rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
        """Return RGB, float32 ``[n, 3]``."""
        grey = Uniform(COLOUR, self.low, self.high).sample(rng, n)[COLOUR]
        return {COLOUR: np.repeat(grey[:, None], 3, 1)}

    def contains(self, values: Values) -> np.ndarray:
        """Return which colours are grey and between the bounds."""
        rgb = column(values, COLOUR, (3,))
        bright = Uniform(COLOUR, self.low, self.high).contains({COLOUR: rgb[..., 0]})
        return bright & close(rgb, rgb[..., :1]).all(-1)


def is_grey(law: Law) -> bool:
    """Return whether a law over `colour` draws nothing but greys."""
    return isinstance(law, Grey) or (
        isinstance(law, Choice) and all(len(set(np.atleast_1d(rgb).tolist())) == 1 for rgb in law.values)
    )


@cache
def parse_colours(text: str) -> Law:
    """Return the law of `colour` that a text describes.

    Args:
        text: ``"rgb"``: uniform in RGB. ``"hsv"``, ``"hsv:0..1,0.5..1,0.5..1"``: uniform in HSV. ``"grey"``,
            ``"grey:0.25..1"``: equal channels. ``"levels:5"``: every channel one of 5 evenly spaced levels (0, 63,
            127, 191, 255 of 255; 125 colours). ``"named"``: white, red, green, blue, yellow, magenta, cyan.
            ``"white"``, ``"red,#00ff80"``: one of these.

    Raises:
        UsageError: The text is none of these.
    """
    kind, colon, rest = text.strip().partition(":")
    try:
        if kind == "rgb" and not colon:
            return Uniform(COLOUR, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        if kind == "named" and not colon:
            return Choice(COLOUR, tuple(_PALETTE.values()))
        if kind == "grey":
            return Grey(*_bounds(rest)) if colon else Grey()
        if kind == "hsv":
            return _hsv_law(rest) if colon else HSV()
        if kind == "levels":
            return _levels_law(int(rest))
        return Choice(COLOUR, tuple(_colour(item.strip()) for item in text.split(",")))
    except ValueError:
        known = [*_PALETTE, "grey", "hsv", "rgb", "levels", "named"]
        hint = did_you_mean(kind, known) if kind not in known else ""
        hint = hint if "Did you mean" in hint else ""  # the list is in the sentence already
        raise UsageError(
            f"colours: expected one of {', '.join(map(repr, _EXAMPLES))} or colour names, got {quoted(text)}.{hint}"
        ) from None


def _bounds(text: str) -> tuple[float, float]:
    low, dots, high = text.partition("..")
    return parse_number(low), parse_number(high if dots else low)


def _hsv_law(text: str) -> HSV:
    hue, saturation, value = (_bounds(item) for item in text.split(","))
    return HSV((hue[0], saturation[0], value[0]), (hue[1], saturation[1], value[1]))


def _levels_law(n: int) -> Choice:
    if not 2 <= n <= 16:
        raise UsageError(f"colours: expected 2 to 16 levels a channel, got {n}.")
    levels = [255 * k // (n - 1) / 255 for k in range(n)]
    return Choice(COLOUR, tuple(itertools.product(levels, repeat=3)))


def _colour(text: str) -> tuple[float, ...]:
    if text == "black":
        return (0.0, 0.0, 0.0)  # not in the palette of objects: they would be lost on a black ground
    if text in _PALETTE:
        return _PALETTE[text]
    if not re.fullmatch("#[0-9a-fA-F]{6}", text):
        raise ValueError(f"no colour: {text!r}")
    return tuple(int(text[i : i + 2], 16) / 255 for i in (1, 3, 5))


def in_gamut(rgb: np.ndarray) -> np.ndarray:
    """Return which rows are colours at all: numbers, all in [0, 1]; bool ``[...]``."""
    return np.logical_and.reduce((rgb >= 0) & (rgb <= 1 + TOLERANCE), -1)


def _triples(values: np.ndarray, what: str, bounded: slice) -> np.ndarray:
    values = np.asarray(values, np.float32)
    if values.ndim == 0 or values.shape[-1] != 3:
        raise UsageError(f"expected {what} of shape [..., 3], got {list(values.shape)}.")
    part = values[..., bounded]
    if (part < 0).any() or (part > 1 + TOLERANCE).any():  # false for NaN: no object
        raise UsageError(
            f"expected {what} between 0 and 1 (divide 8-bit values by 255), got {_extent(part)}."
        )
    return values


def _extent(values: np.ndarray) -> str:
    return f"{np.nanmin(values):g} to {np.nanmax(values):g}"
