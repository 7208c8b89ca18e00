"""dSprites' shapes as a source of objects: described first, drawn only where their place may stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from multiobj_data.composition.overlap import Overlap, Placed
from multiobj_data.factors import Law
from multiobj_data.factors.colours import colour_code, rgb_to_hsv
from multiobj_data.sprites import shapes
from multiobj_data.sprites.bank import Sprites

Position = Literal["inside", "dsprites"]

_CHUNK = 4096  # pairs to compare at a time, so that the working set stays in the cache


class ColouredShapes:
    """What sources of dSprites' shapes store of their objects.

    The table of such an object holds ``shape`` int16, ``scale``, ``orientation`` (radians), ``pos_x``, ``pos_y``
    (0..1 of the places allowed), ``colour`` (RGB) and, in pixels, ``x`` and ``y``; all float32.
    """

    channels: int

    def factors(self, placed: Placed) -> dict[str, np.ndarray]:
        """Return shape, size, place (of the centre, in pixels) and colour as RGB and HSV."""
        table = placed.table or _NOTHING
        column = {name: values[placed.row] for name, values in table.items()}
        names = ("shape", "scale", "orientation", "x", "y", "colour")
        return {**{name: column[name] for name in names}, "colour_hsv": rgb_to_hsv(column["colour"])}

    def colour(self, placed: Placed) -> np.ndarray:
        """Return the RGB or grey of each object."""
        return placed.values("colour")[:, : self.channels]


def describe(values: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Return the factors by which a hold-out may speak: colours by word, hue, saturation and value."""
    hue, saturation, value = rgb_to_hsv(values["colour"]).T
    words = {"colour": colour_code(values["colour"])}
    return {**values, **words, "hue": hue, "saturation": saturation, "value": value}


_NOTHING: dict[str, np.ndarray] = {
    "shape": np.zeros(0, np.int16),
    "colour": np.zeros((0, 3), np.float32),
    **{name: np.zeros(0, np.float32) for name in ("scale", "orientation", "x", "y")},
}


@dataclass(frozen=True, eq=False)
class PlacedShapes(ColouredShapes):
    """Proposes shapes at any scale, orientation and sub-pixel place.

    Args:
        law: Draws ``shape``, ``scale``, ``orientation``, ``pos_x``, ``pos_y`` and what rules or hold-outs ask for.
        looks: Draws the rest, once a scene is accepted: ``colour``, unless ``law`` does.
        canvas: Side of the frame in pixels.
        position: ``inside``: ``pos`` 0..1 spans the places at which the shape lies in the frame; ``dsprites``: the
            middle half of the canvas.
        largest: Bound on the scale.
        channels: 1 or 3.
    """

    law: Law
    looks: Law | None
    canvas: int
    position: Position
    largest: float
    channels: int

    def propose(self, rng: np.random.Generator, n: int) -> Sketch:
        """Propose a shape and its place in each of ``n`` scenes."""
        table = self.law.sample(rng, n)
        code, scale = table["shape"], table["scale"]
        if self.position == "dsprites":
            low, high = self.canvas / 4, 3 * self.canvas / 4
            x, y = (low + (high - low) * table[name] for name in ("pos_x", "pos_y"))
        else:
            left, up, right, down = shapes.extents(code, scale, table["orientation"]).T
            x = left + (np.float32(self.canvas) - left - right) * table["pos_x"]
            y = up + (np.float32(self.canvas) - up - down) * table["pos_y"]
        table["x"], table["y"] = x.astype(np.float32, copy=False), y.astype(np.float32, copy=False)
        return Sketch(self, table, np.arange(n), table["x"], table["y"], shapes.core_radius(code, scale))

    def nothing(self) -> Placed:
        """Return the shapes of no scene."""
        return Placed.nowhere(Sprites.empty(self.patch, 0))

    @property
    def patch(self) -> int:
        """Side of the patches."""
        return shapes.patch_side(self.largest)

    def draw(self, table: Mapping[str, np.ndarray]) -> Placed:
        """Draw the shapes that a table describes."""
        centre = np.stack([table["x"], table["y"]], 1)  # [n, 2]
        corner = np.ceil(centre - np.float32(shapes.REACH * self.largest + 0.5)).astype(np.int32)
        code, scale, orientation = (table[name] for name in ("shape", "scale", "orientation"))
        sprites = Sprites.cut(
            shapes.rasterise(code, scale, orientation, centre - corner.astype(np.float32), self.patch)
        )
        box = sprites.ink_box + np.concatenate([corner, corner], 1)
        every = np.arange(len(box))
        return Placed(sprites, every, box[:, 0], box[:, 1], every, table, box)


@dataclass(frozen=True, eq=False)
class Sketch:
    """N shapes that are described, not drawn: most candidates of a crowded scene need not be.

    Attributes:
        source: Draws them.
        table: Their factors, name -> ``[M, ...]``.
        row: int64 ``[N]``, each one's row of the table.
        x: float32 ``[N]``, of the centre, in pixels.
        y: float32 ``[N]``.
        core: float32 ``[N]``, radius of a disc around the centre that lies inside the shape.
    """

    source: PlacedShapes
    table: Mapping[str, np.ndarray]
    row: np.ndarray
    x: np.ndarray
    y: np.ndarray
    core: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, keep: np.ndarray | slice) -> Sketch:
        kept = (values[keep] for values in (self.row, self.x, self.y, self.core))
        return Sketch(self.source, self.table, *kept)

    def values(self, name: str) -> np.ndarray:
        """Return a factor of each shape, ``[N, ...]``."""
        return self.table[name][self.row]

    def rejected(self, earlier: Sequence[Sketch], overlap: Overlap) -> np.ndarray:
        """Return bool ``[N]``: which scenes break the contract whatever the pixels turn out to be."""
        bad = np.zeros(len(self), bool)
        if overlap.max_iou:  # about which discs say nothing
            return bad
        for other in earlier:  # the discs in the middle need no turning, and settle most
            bad |= overlap.surely_rejects(self.x - other.x, self.y - other.y, self.core + other.core)
        for other in earlier:
            left = np.flatnonzero(~bad)
            for start in range(0, len(left), _CHUNK):
                some = left[start : start + _CHUNK]
                bad[some] = self[some]._discs_collide(other[some], overlap)
        return bad

    def _discs_collide(self, other: Sketch, overlap: Overlap) -> np.ndarray:
        x, y, radius = self._discs()
        other_x, other_y, other_radius = other._discs()
        bad = np.zeros(len(self), bool)
        for disc in range(len(radius)):
            pairs = overlap.surely_rejects(x[disc] - other_x, y[disc] - other_y, radius[disc] + other_radius)
            bad |= np.logical_or.reduce(pairs)  # [D, N]
        return bad

    def _discs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return x and y on the canvas and radius of discs inside the shapes, ``[D, N]`` each."""
        dx, dy, radius = shapes.discs(*(self.values(name) for name in ("shape", "scale", "orientation")))
        return dx + self.x, dy + self.y, radius

    def settle(self, rng: np.random.Generator) -> Placed:
        """Draw them."""
        table = {name: values[self.row] for name, values in self.table.items()}
        if self.source.looks is not None:
            table |= self.source.looks.sample(rng, len(self))
        return self.source.draw(table)
