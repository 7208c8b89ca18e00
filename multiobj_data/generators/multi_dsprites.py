"""Multi-dSprites: squares, ellipses and hearts, as in dSprites, several to a scene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar, Literal

import numpy as np

from multiobj_data.composition.counts import Counts
from multiobj_data.composition.placement import Source
from multiobj_data.configuration import UNRECORDED
from multiobj_data.errors import InfeasibleError, UsageError, did_you_mean, quoted
from multiobj_data.factors import Choice, Law, Minus, Product, Uniform, parse_law
from multiobj_data.factors.colours import COLOUR_WORDS, is_grey, parse_colours
from multiobj_data.factors.laws import TOLERANCE, Condition
from multiobj_data.generators.flat import FlatGenerator
from multiobj_data.sprites import shapes
from multiobj_data.sprites.dsprites_file import FileLaw, PlacedFromFile, load_dsprites
from multiobj_data.sprites.rendered import PlacedShapes, Position, describe

_MENTIONED = 0.01  # share of objects lost on their ground; GENESIS' 125 colours lose 0.8 %
GRID = 32  # positions of dSprites along each axis
SMALLEST = 0.2  # scale below which a shape may miss every pixel's centre


@dataclass(frozen=True)
class MultiDSprites(FlatGenerator):
    """Scenes of dSprites' shapes, as in IODINE, GENESIS and DeepMind's Multi-dSprites; later ones lie in front.

    `FlatGenerator` has the settings that all flat generators share.

    Args:
        shapes: Which, comma-separated: square, ellipse, heart.
        scale: ``"0.5..1"`` (uniform), ``"0.5..1/6"`` (six values), ``"0.6,0.8"``; at 1, a square is 19.2 pixels
            wide and a heart too, an ellipse 25.5, whatever the canvas.
        orientation: Radians from -2pi to 2pi, in the same forms; ``"0..2pi"`` or dSprites' ``"0..2pi/40"``
            (whose last value equals its first).
        position: ``inside``: anywhere, to fractions of a pixel, such that the shape lies in the frame.
            ``dsprites``: centres on its grid of 32x32 points in the middle half of the canvas.
        colours: Of the objects: white, grey, hsv, rgb, levels:5, named, or ``#ff0000,#00ff00``; see
            `parse_colours`.
        ground: Colour behind them, in the same forms, or black.
        sprites: rendered here from dSprites' geometry, or taken from its file (then 64x64, its scales,
            orientations and positions).
        dsprites_file: The file, ``dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz``, on this machine; not part of
            the data set.
    """

    id: ClassVar[str] = "multi-dsprites-v1"
    noun: ClassVar[str] = "sprites"
    per_machine: ClassVar[tuple[str, ...]] = ("sprites", "dsprites_file")

    counts: str = "1-4"  # GENESIS; DeepMind's coloured on coloured
    canvas: int = 64
    shapes: str = "square,ellipse,heart"
    scale: str = "0.5..1"
    orientation: str = "0..2pi"
    position: Position = "inside"
    colours: str = "hsv"  # DeepMind's coloured on grey
    ground: str = "grey"
    sprites: Literal["rendered", "file"] = "rendered"
    dsprites_file: str | None = field(default=None, metadata=UNRECORDED)

    def __post_init__(self) -> None:
        parse_colours(self.ground)
        smallest = bounds(self._factor_laws["scale"])[0]
        if smallest < SMALLEST:
            raise UsageError(
                f"scale: expected at least {SMALLEST}, below which shapes lose their form, got {smallest:g}."
            )
        _refuse_degrees(bounds(self._factor_laws["orientation"]))
        if self.sprites == "file" and (self.canvas != 64 or self.position != "dsprites"):
            raise UsageError(
                f"sprites=file gives dSprites' own 64x64 pictures: expected canvas 64 and position=dsprites, got "
                f"{self.canvas} and {self.position}."
            )
        super().__post_init__()
        if Counts(self.counts).largest and self._share_lost == 1:
            raise UsageError(
                f"colours {quoted(self.colours)} on ground {quoted(self.ground)}: no object could be seen; use another "
                "--set ground or colours."
            )

    def sources(self) -> dict[str, str]:
        """Return the SHA-256 of dSprites' file, if it is used."""
        return dict(load_dsprites(self.dsprites_file).sha256) if self.sprites == "file" else {}

    @property
    def channels(self) -> int:
        """1 if all is grey, otherwise 3."""
        return 1 if is_grey(parse_colours(self.colours)) and is_grey(parse_colours(self.ground)) else 3

    @property
    def vocabulary(self) -> Mapping[str, Mapping[str, int] | None]:
        """Shape and colour by their words; the others are numbers, positions in 0..1 of what is allowed."""
        words = {"shape": shapes.CODES, "colour": COLOUR_WORDS}
        return {**words, **dict.fromkeys(_NUMBERS)}

    @property
    def distinguishable(self) -> tuple[str, ...]:
        """The factors in which sprites can be asked to differ."""
        return ("shape", "colour", "scale", "orientation")

    @property
    def largest_side(self) -> int:
        """Upper bound on the side of a shape; on dSprites' grid, canvas that the outermost need."""
        reach = shapes.REACH * self._largest
        return int(np.ceil(4 * reach)) if self.position == "dsprites" else shapes.patch_side(self._largest)

    describe = staticmethod(describe)

    @property
    def _largest(self) -> float:
        return bounds(self._factor_laws["scale"])[1]

    @property
    def _factor_laws(self) -> dict[str, Law]:
        """Each factor's law, by name."""
        place = "0..1" if self.position == "inside" else f"0..1/{GRID}"
        names = [name.strip() for name in self.shapes.split(",")]
        for name in names:
            if name not in shapes.CODES:
                hint = did_you_mean(name, shapes.SHAPES)
                raise UsageError(
                    f"shapes: expected some of {', '.join(shapes.SHAPES)}, got {quoted(name)}.{hint}"
                )
        return {
            "shape": Choice("shape", tuple(shapes.CODES[name] for name in names)),
            "scale": parse_law("scale", self.scale),
            "orientation": parse_law("orientation", self.orientation),
            "pos_x": parse_law("pos_x", place),
            "pos_y": parse_law("pos_y", place),
            "colour": parse_colours(self.colours),
        }

    def _ground(
        self, rng: np.random.Generator, factors: Mapping[str, np.ndarray], n: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        law = parse_colours(self.ground)
        colour = law.sample(rng, n)["colour"]  # [n, 3]
        if "colour" in self._distinct:
            colour = _unlike(colour, factors["colour"], law, rng)
        return np.rint(255 * colour[:, : self.channels]).astype(np.uint8), {"ground_colour": colour}

    def _ground_brightness(self) -> np.ndarray:
        return some_colours(self.ground).max(1)

    def _hidden(self) -> list[str]:
        share, notes = self._share_lost, super()._hidden()
        if share < _MENTIONED:
            return notes
        return [
            *notes,
            f"{share:.0%} of the objects have the very colour of their ground and cannot be seen; distinct=colour "
            "keeps them apart",
        ]

    @property
    def _share_lost(self) -> float:
        return 0.0 if "colour" in self._distinct else _share_equal(self.colours, self.ground)

    def _source(self, part: str, without: Condition | None) -> Source:
        laws = self._factor_laws
        if self.sprites == "rendered":
            # Colours come last, for accepted scenes only, unless something that was tested before depends on them.
            looks = None if self.holdout or "colour" in self._distinct else laws.pop("colour")
            law = _without(Product(tuple(laws.values())), without)
            return PlacedShapes(law, looks, self.canvas, self.position, self._largest, self.channels)
        file = load_dsprites(self.dsprites_file)
        rows = file.rows_where(Product(tuple(law for name, law in laws.items() if name != "colour")))
        law = _without(Product((FileLaw(file, rows), laws["colour"])), without)
        return PlacedFromFile(law, file, self.channels)


_NUMBERS = ("scale", "orientation", "pos_x", "pos_y", "hue", "saturation", "value")


@cache
def some_colours(text: str) -> np.ndarray:
    """Return colours that a text describes, drawn from their law, uint8 ``[10000, 3]``; the same ones always."""
    colours = parse_colours(text).sample(np.random.default_rng(0), 10_000)["colour"]
    return np.rint(255 * colours).astype(np.uint8)


@cache
def _share_equal(one: str, other: str) -> float:
    """Estimate how often a colour of one text equals one of the other, each drawn by itself."""
    shares = []  # of each colour, by its number
    for text in (one, other):
        numbers = some_colours(text).astype(int) @ (1, 256, 65536)
        values, times = np.unique(numbers, return_counts=True)
        shares.append(dict(zip(values.tolist(), times / len(numbers), strict=True)))
    return float(sum(share * shares[1].get(number, 0) for number, share in shares[0].items()))


def _without(law: Law, held_out: Condition | None) -> Law:
    return law if held_out is None else Minus(law, held_out)


def bounds(law: Law) -> tuple[float, float]:
    """Return the smallest and the largest value of a law over one number."""
    values = (
        (law.low, law.high) if isinstance(law, Uniform) else law.values if isinstance(law, Choice) else ()
    )
    numbers = [float(value) for value in values if not isinstance(value, tuple)]
    return min(numbers), max(numbers)


def _refuse_degrees(orientations: tuple[float, float]) -> None:
    furthest = max(orientations, key=abs)
    if abs(furthest) > 2 * np.pi * (1 + TOLERANCE):
        raise UsageError(
            f"orientation: expected radians from -2pi to 2pi, got {furthest:g}; {furthest:g} degrees are "
            f"{furthest / 180:g}pi."
        )


def _unlike(colour: np.ndarray, others: np.ndarray, law: Law, rng: np.random.Generator) -> np.ndarray:
    """Draw colours ``[n, 3]`` anew until none is equal to one of the others ``[n, K, 3]``."""
    for _ in range(1000):
        same = (np.abs(colour[:, None] - others) < 1 / 512).all(-1).any(-1)  # NaN, i.e. absent, is unlike any
        if not same.any():
            return colour
        colour[same] = law.sample(rng, int(same.sum()))["colour"]
    raise InfeasibleError(
        "distinct colours: none is left for the ground; give more --set colours or another ground."
    )
