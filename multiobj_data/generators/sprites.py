"""SuPAIR's Sprites: circles, squares and diamonds of 12 to 16 pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal

import numpy as np

from multiobj_data.composition.overlap import Placed
from multiobj_data.errors import UsageError
from multiobj_data.factors import Law, Minus, Values
from multiobj_data.factors.laws import Condition
from multiobj_data.generators.flat import FlatGenerator
from multiobj_data.sprites.bank import Sprites as Bank

CODES = {"circle": 0, "square": 1, "diamond": 2}
GREYS = (1.0, 0.8, 0.7)  # of red, green and blue in SuPAIR's conversion: one grey a shape
_MOST_OFFSETS = 1 << 19  # of pairs of sprites; more would not fit into the cache
COLOURS = np.eye(3, dtype=np.float32)  # circle red, square green, diamond blue


@dataclass(frozen=True)
class Sprites(FlatGenerator):
    """Scenes of circles, squares and diamonds, as in SuPAIR (Stelzner et al. 2019, section 4.2).

    The corner of a sprite's patch is uniform over the whole pixels from which the smallest still fits; its side
    is uniform over the whole numbers from the smallest to what fits there. Differs from the authors' code: a
    scene with overlap is redrawn whole, not only its last sprite, so that valid scenes are equally
    likely. `FlatGenerator` has the settings that all flat generators share.

    Args:
        sides: Smallest and largest side in pixels.
        colours: ``grey`` (circle 1.0, square 0.8, diamond 0.7: what SuPAIR's models see) or ``rgb`` (circle
            red, square green, diamond blue, as its file holds).
    """

    id: ClassVar[str] = "sprites-v1"
    noun: ClassVar[str] = "sprites"
    smaller: ClassVar[str] = "smaller --set sides"

    counts: str = "0-2"
    canvas: int = 50
    overlap: bool = False  # no pixel is used twice
    sides: tuple[int, int] = (12, 16)
    colours: Literal["grey", "rgb"] = "grey"

    def __post_init__(self) -> None:
        smallest, largest = self.sides
        if not 4 <= smallest <= largest <= self.canvas:
            raise UsageError(
                f"sides: expected 4 <= smallest <= largest <= canvas ({self.canvas}), got {smallest},{largest}."
            )
        super().__post_init__()

    @property
    def channels(self) -> int:
        """1 or 3."""
        return 1 if self.colours == "grey" else 3

    @property
    def vocabulary(self) -> Mapping[str, Mapping[str, int] | None]:
        """The shape, the side and the corner of the patch in pixels."""
        return {"shape": CODES, "side": None, "left": None, "top": None}

    @property
    def distinguishable(self) -> tuple[str, ...]:
        """The factors in which sprites can be asked to differ."""
        return ("shape", "side")

    @property
    def largest_side(self) -> int:
        """Side of the largest patch."""
        return self.sides[1]

    def _ground(
        self, rng: np.random.Generator, factors: Mapping[str, np.ndarray], n: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        return np.zeros((n, self.channels), np.uint8), {}

    def _source(self, part: str, without: Condition | None) -> PlacedSprites:
        law: Law = SpriteLaw(self.sides, self.canvas)
        if without is not None:
            law = Minus(law, without)
        return PlacedSprites(law, self.sides, self.channels)


@dataclass(frozen=True)
class SpriteLaw:
    """The law over ``shape``, ``side``, ``left`` and ``top`` of a sprite, int16 each.

    Args:
        sides: Smallest and largest side.
        canvas: Side of the frame in pixels.
    """

    sides: tuple[int, int]
    canvas: int

    @property
    def names(self) -> tuple[str, ...]:
        """Return the factors."""
        return ("shape", "side", "left", "top")

    def sample(self, rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
        """Draw n sprites: name -> int16 ``[n]``."""
        smallest, largest = self.sides
        places = self.canvas - smallest + 1  # along one axis
        number = rng.integers(3 * places**2, size=n, dtype=np.uint32 if places > 147 else np.uint16)
        rest = (
            number // places
        )  # shape and place in one draw; NumPy divides several times faster than it takes rests
        shape = rest // places
        left, top, shape = (
            v.astype(np.int16) for v in (number - rest * places, rest - shape * places, shape)
        )
        side = np.full(n, smallest, np.int16)
        if largest > smallest:
            choices = np.minimum(largest, self.canvas - np.maximum(left, top)) - (smallest - 1)
            side += (rng.random(n, dtype=np.float32) * choices).astype(np.int16)  # below 1, times few: exact
        return {"shape": shape, "side": side, "left": left, "top": top}

    def contains(self, values: Values) -> np.ndarray:
        """Return which sprites can be drawn, bool ``[n]``."""
        shape, side, left, top = (values[name] for name in self.names)
        known = (shape >= 0) & (shape < 3) & (side >= self.sides[0]) & (side <= self.sides[1])
        return known & (left >= 0) & (top >= 0) & (np.maximum(left, top) + side <= self.canvas)


@dataclass(frozen=True, eq=False)
class PlacedSprites:
    """Proposes sprites where their law puts them.

    Args:
        law: A `SpriteLaw`, or part of one.
        sides: Smallest and largest side.
        channels: 1 or 3.
    """

    law: Law
    sides: tuple[int, int]
    channels: int

    def propose(self, rng: np.random.Generator, n: int) -> Placed:
        """Propose a sprite in each of ``n`` scenes."""
        table = self.law.sample(rng, n)
        bank = all_sprites(self.sides)
        index = table["shape"].astype(np.int32) * (self.sides[1] - self.sides[0] + 1)
        index += table["side"] - self.sides[0]
        x, y = (table[name] + bank.ink_box[:, axis].take(index) for axis, name in enumerate(("left", "top")))
        return Placed(bank, index, x, y, np.arange(n), table)

    def nothing(self) -> Placed:
        """Return the sprites of no scene."""
        return Placed.nowhere(all_sprites(self.sides))

    def factors(self, placed: Placed) -> dict[str, np.ndarray]:
        """Return shape, side, the centre of the ink in pixels, and the colour as painted."""
        x, y = ((placed.box[:, :2] + placed.box[:, 2:]) / 2).astype(np.float32).T
        drawn = {
            name: placed.values(name) if placed.table else np.zeros(0, np.int16)
            for name in ("shape", "side", "left", "top")
        }
        return {**drawn, "x": x, "y": y, "colour": self._rgb(drawn["shape"])}

    def colour(self, placed: Placed) -> np.ndarray:
        """Return the colour of each shape."""
        return self._rgb(placed.values("shape"))[:, : self.channels]

    def _rgb(self, shape: np.ndarray) -> np.ndarray:
        greys = np.repeat(np.array(GREYS, np.float32)[:, None], 3, 1)
        return (greys if self.channels == 1 else COLOURS)[shape]


@cache
def all_sprites(sides: tuple[int, int]) -> Bank:
    """Return every shape at every side: index ``shape * (number of sides) + side - smallest``."""
    smallest, largest = sides
    patches = np.zeros((3 * (largest - smallest + 1), largest, largest), np.uint8)
    side = np.tile(np.arange(smallest, largest + 1), 3)
    for patch, s, shape in zip(patches, side, np.repeat(np.arange(3), largest - smallest + 1), strict=True):
        patch[:s, :s] = 255 * sprite_mask(int(shape), int(s))
    bank = Bank.empty(largest, len(patches))
    bank.append(patches, side)
    if bank.n**2 * (2 * largest + 1) ** 2 <= _MOST_OFFSETS:
        bank.tables = {}
    return bank


def sprite_mask(shape: int, side: int) -> np.ndarray:
    """Return the pixels of a sprite in its patch, bool ``[side, side]`` (SuPAIR's ``make_sprites``).

    With radius ``r = side // 2`` around pixel ``r``: a circle has squared distance below ``r ** 2``, a diamond
    city-block distance below r, a square fills the patch.
    """
    r = side // 2
    away = np.arange(side) - r
    if shape == CODES["square"]:
        return np.ones((side, side), bool)
    if shape == CODES["circle"]:
        return away[:, None] ** 2 + away**2 < r * r
    return np.abs(away)[:, None] + np.abs(away) < r
