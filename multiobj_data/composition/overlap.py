"""The overlap contract: when two objects (or a whole scene) count as overlapping.

- ``pixels``: no two objects share a lit pixel. Exact.
- ``boxes``: tight boxes are disjoint, at least ``margin`` pixels apart, or have at most ``max_iou``.
- ``rows-and-columns``: tight boxes share neither a row nor a column (as the ASR authors' data).
- ``legacy``: no pixel of the summed layers exceeds 255 (the check of older generators, e.g. Pyro's and
  SuPAIR's). Objects may share grey pixels; it is here so that old numbers can be met.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from multiobj_data.errors import UsageError
from multiobj_data.sprites.bank import Sprites

Rule = Literal["pixels", "boxes", "rows-and-columns", "legacy"]

_CHUNK = 2048  # pairs to compare pixel by pixel at a time


@dataclass(frozen=True)
class Placed:
    """One object in each of N candidate scenes.

    Attributes:
        sprites: Where the pictures are.
        index: whole numbers ``[N]``, which sprite.
        x: int32 ``[N]``, left edge of the *ink box* on the canvas, in pixels.
        y: int32 ``[N]``, its top edge.
        row: int64 ``[N]``, each object's row of the table.
        table: What the law of the objects drew: name -> ``[M, ...]``.
        known_box: `box`, where it came for free; ``None`` computes it when it is asked for.
    """

    sprites: Sprites
    index: np.ndarray
    x: np.ndarray
    y: np.ndarray
    row: np.ndarray
    table: Mapping[str, np.ndarray] = field(default_factory=dict)
    known_box: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, keep: np.ndarray | slice) -> Placed:
        at = {name: getattr(self, name)[keep] for name in ("index", "x", "y", "row")}
        box = None if self.known_box is None else self.known_box[keep]
        return Placed(self.sprites, **at, table=self.table, known_box=box)

    @cached_property
    def box(self) -> np.ndarray:
        """The ink box on the canvas, int32 ``[N, 4]``."""
        if self.known_box is not None:
            return self.known_box
        ink = self.sprites.ink_box[self.index]
        return ink + np.stack([self.x - ink[:, 0], self.y - ink[:, 1]] * 2, 1)

    def values(self, name: str) -> np.ndarray:
        """Return what the law drew for each object, ``[N, ...]``."""
        return self.table[name][self.row]

    def rejected(self, earlier: Sequence[Placed], overlap: Overlap) -> np.ndarray:
        """Return bool ``[N]``: which scenes break the contract; see `Overlap.rejects`."""
        return overlap.rejects(earlier, self)

    def settle(self, rng: np.random.Generator) -> Placed:
        """Return these objects, whose pixels are known already."""
        return self

    @classmethod
    def nowhere(cls, sprites: Sprites) -> Placed:
        """Return the objects of no scene."""
        none = np.zeros(0, np.int32)
        return cls(sprites, none, none, none, none)

    @classmethod
    def concatenate(cls, parts: Sequence[Placed]) -> Placed:
        """Join batches; where each has sprites of its own, those are joined too."""
        sprites, index = parts[0].sprites, np.concatenate([p.index for p in parts])
        if any(p.sprites is not sprites for p in parts):
            sprites = Sprites.gather([(p.sprites, p.index) for p in parts])
            index = np.arange(len(index))
        x, y, box = (np.concatenate([getattr(p, name) for p in parts]) for name in ("x", "y", "box"))
        names = max((p.table for p in parts), key=len)  # batches of nothing have an empty one
        table = {name: np.concatenate([p.values(name) for p in parts if name in p.table]) for name in names}
        return cls(sprites, index, x, y, np.arange(len(index)), table, box)


@dataclass(frozen=True)
class Overlap:
    """A rule and its parameters.

    Args:
        rule: See the module's text.
        max_iou: ``boxes`` only: the largest intersection over union that two tight boxes may have.
        margin: ``boxes`` only: least free distance between boxes, in pixels, along x or y.
    """

    rule: Rule = "pixels"
    max_iou: float = 0.0
    margin: int = 0

    def __post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise UsageError(f"overlap_rule: expected one of {', '.join(get_args(Rule))}, got {self.rule!r}.")
        if self.rule != "boxes" and (self.max_iou or self.margin):
            raise UsageError(
                f"max_iou and margin belong to overlap_rule=boxes, not to {self.rule!r}; leave them out."
            )
        if not 0 <= self.max_iou < 1 or self.margin < 0 or (self.max_iou and self.margin):
            raise UsageError(
                f"expected max_iou in [0, 1) or margin >= 0, not both; got {self.max_iou} and {self.margin}."
            )

    def rejects(self, earlier: Sequence[Placed], new: Placed) -> np.ndarray:
        """Return bool ``[N]``: which scenes break the rule once ``new`` joins the ``earlier`` objects."""
        bad = np.zeros(len(new), bool)
        if self.rule == "legacy":
            return _saturates(earlier, new)
        tables = new.sprites.tables
        # A table grows with the margin's square.
        if tables is None or self.margin > new.sprites.tile.shape[1]:
            return self._rejects_anew(earlier, new)
        if self not in tables:
            tables[self] = Collisions.of(new.sprites, self)
        for other in earlier:
            bad |= tables[self].collide(other, new)
        return bad

    def _rejects_anew(self, earlier: Sequence[Placed], new: Placed) -> np.ndarray:
        """Look at boxes, and then at the pixels of those that are close."""
        bad = np.zeros(len(new), bool)
        collide = self._collide()
        for other in earlier:
            close = self._suspects(other, new) & ~bad
            for where in _chunks(np.flatnonzero(close)):
                bad[where] = collide(other[where], new[where])
        return bad

    def surely_rejects(self, dx: np.ndarray, dy: np.ndarray, reach: np.ndarray) -> np.ndarray:
        """Return the pairs that break the rule whatever their pixels, as discs inside them tell.

        Two opaque objects, each of which holds a disc, are told from the discs' centres alone; it spares drawing
        most candidates of a crowded scene.

        Args:
            dx: float ``[...]``, from one centre to the other along x, in pixels (to 0.03).
            dy: Along y.
            reach: The sum of the two radii.

        Returns:
            bool ``[...]``. False says nothing, and all are where boxes may intersect up to `max_iou`.
        """
        if self.max_iou:
            return np.zeros(np.shape(reach), bool)
        # A disc of radius r has a lit pixel in each row and column that its diameter shortened by 1.5 crosses
        # (0.5 for the pixel's half, less than 1 for the grid), and any disc of radius 0.71 holds a pixel's centre.
        if self.rule == "rows-and-columns":
            return np.minimum(np.abs(dx), np.abs(dy)) < reach - 1.5
        if self.rule == "boxes":
            return np.maximum(np.abs(dx), np.abs(dy)) < reach - 1.5 + self.margin
        return dx * dx + dy * dy < np.square(np.maximum(reach - 1.5, 0))

    def _suspects(self, a: Placed, b: Placed) -> np.ndarray:
        """Return the pairs that a look at their boxes does not clear: bool ``[N]``."""
        gap = _gaps(a, b)  # [2, N]
        if self.rule == "rows-and-columns":
            return gap.min(0) < 0
        return gap.max(0) < self.margin

    def _collide(self) -> Callable[[Placed, Placed], np.ndarray]:
        if self.rule == "pixels":
            return _share_a_pixel
        if self.max_iou:
            return lambda a, b: _box_iou(a, b) > self.max_iou
        return lambda a, b: np.ones(len(a), bool)


@dataclass(frozen=True, eq=False)
class Collisions:
    """What a rule says of every pair of a few sprites at every offset: pairs are looked up, not compared.

    Attributes:
        bad: bool ``[n * n * W * W]`` of sprite a, sprite b, offset from a to b along y, along x.
        n: Number of sprites.
        reach: Farthest offset that matters; ``W = 2 * reach + 1``.
    """

    bad: np.ndarray
    n: int
    reach: int

    @classmethod
    def of(cls, sprites: Sprites, overlap: Overlap) -> Collisions:
        """Compare all pairs."""
        reach = sprites.tile.shape[1] + overlap.margin
        y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.int32).reshape(2, -1)
        second = np.repeat(np.arange(sprites.n), len(x))
        b = Placed(sprites, second, np.tile(x, sprites.n), np.tile(y, sprites.n), second)
        origin = np.zeros_like(b.x)
        rows = [
            overlap._rejects_anew([Placed(sprites, np.full_like(second, a), origin, origin, second)], b)
            for a in range(sprites.n)
        ]
        return cls(np.concatenate(rows), sprites.n, reach)

    def collide(self, a: Placed, b: Placed) -> np.ndarray:
        """Return whether ``a`` and ``b`` break the rule, bool ``[N]``."""
        width = 2 * self.reach + 1
        dx, dy = (np.clip(there - here, -self.reach, self.reach) for here, there in ((a.x, b.x), (a.y, b.y)))
        pair = (a.index * self.n + b.index) * (width * width) + (dy + self.reach) * width + (dx + self.reach)
        return self.bad.take(pair)


def _gaps(a: Placed, b: Placed) -> np.ndarray:
    """Free pixels between two boxes along x and y (negative: they share columns or rows), ``[2, N]``."""
    return np.maximum(a.box[:, :2] - b.box[:, 2:], b.box[:, :2] - a.box[:, 2:]).T


def _box_iou(a: Placed, b: Placed) -> np.ndarray:
    shared = np.minimum(a.box[:, 2:], b.box[:, 2:]) - np.maximum(a.box[:, :2], b.box[:, :2])
    intersection = np.maximum(shared, 0).prod(1)
    areas = [(p.box[:, 2:] - p.box[:, :2]).prod(1) for p in (a, b)]
    return intersection / np.maximum(areas[0] + areas[1] - intersection, 1)


def _chunks(where: np.ndarray) -> list[np.ndarray]:
    """Cut a list of pairs into parts whose pixels fit into the cache."""
    return [where[start : start + _CHUNK] for start in range(0, len(where), _CHUNK)]


def _share_a_pixel(a: Placed, b: Placed) -> np.ndarray:
    """Return whether ``a`` and ``b`` have a lit pixel in common; expects intersecting boxes."""
    if a.sprites.ink_rows is None or b.sprites.ink_rows is None:
        return ((_tiles_under(a, b) > 0) & (b.sprites.tile[b.index] > 0)).any((1, 2))
    rows = b.sprites.rows_from(b.index, np.zeros(len(b), np.int64))  # [N, P]
    shift = b.x - a.x  # boxes intersect, so |shift| < 64
    rows <<= np.maximum(shift, 0).astype(np.uint64)[:, None]
    rows >>= np.maximum(-shift, 0).astype(np.uint64)[:, None]
    rows &= a.sprites.rows_from(a.index, b.y - a.y)  # those of a that lie under b's
    return np.bitwise_or.reduce(rows, axis=1) != 0


def _tiles_under(a: Placed, b: Placed) -> np.ndarray:
    """Return the values of ``a`` seen through ``b``'s tile, uint8 ``[N, P, P]``; zero where ``a`` is not."""
    p_a, p_b = a.sprites.tile.shape[1], b.sprites.tile.shape[1]
    reach = np.arange(p_b)
    row, column = reach + (b.y - a.y)[:, None], reach + (b.x - a.x)[:, None]  # [N, P of b], in a's frame
    row_inside, column_inside = (row >= 0) & (row < p_a), (column >= 0) & (column < p_a)
    first = (a.index * p_a)[:, None] + np.where(row_inside, row, 0)
    seen = a.sprites.tile.reshape(-1).take(
        first[:, :, None] * p_a + np.where(column_inside, column, 0)[:, None, :]
    )
    return seen * (row_inside[:, :, None] & column_inside[:, None, :])


def _saturates(earlier: Sequence[Placed], new: Placed) -> np.ndarray:
    """Return whether any pixel of the summed layers exceeds 255 under ``new``'s tile."""
    near = np.zeros(len(new), bool)
    for other in earlier:
        near |= _gaps(other, new).max(0) < 0
    bad = np.zeros(len(new), bool)
    for where in _chunks(np.flatnonzero(near)):
        some = new[where]
        own = some.sprites.tile[some.index].astype(np.uint16)
        total = own.copy()
        for other in earlier:
            total += _tiles_under(other[where], some)
        bad[where] = ((total > 255) & (own > 0)).any((1, 2))
    return bad
