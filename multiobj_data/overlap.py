"""The overlap contract: when two objects (or a whole scene) count as overlapping.

- ``pixels``: no two objects share a lit pixel. Exact.
- ``boxes``: tight boxes are disjoint, at least ``margin`` pixels apart, or have at most ``max_iou``.
- ``rows-and-columns``: tight boxes share neither a row nor a column (as the ASR authors' data).
- ``legacy``: no pixel of the summed layers exceeds 255 (the check of older generators, e.g. Pyro's and
  SuPAIR's). Objects may share grey pixels; it is here so that old numbers can be met.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from multiobj_data.errors import UsageError
from multiobj_data.sprites.bank import Sprites

Rule = Literal["pixels", "boxes", "rows-and-columns", "legacy"]


@dataclass(frozen=True)
class Placed:
    """One object in each of N candidate scenes.

    Attributes:
        sprites: Where the pictures are.
        index: int64 ``[N]``, which sprite.
        x: int32 ``[N]``, left edge of the *ink box* on the canvas, in pixels.
        y: int32 ``[N]``, its top edge.
        box: int32 ``[N, 4]``, the ink box on the canvas.
    """

    sprites: Sprites
    index: np.ndarray
    x: np.ndarray
    y: np.ndarray
    box: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, keep: np.ndarray) -> Placed:
        return Placed(self.sprites, self.index[keep], self.x[keep], self.y[keep], self.box[keep])


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
        collide = self._collide()
        for other in earlier:
            close = self._suspects(other, new) & ~bad
            where = np.flatnonzero(close)
            bad[where] = collide(other[where], new[where])
        return bad

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


def _gaps(a: Placed, b: Placed) -> np.ndarray:
    """Free pixels between two boxes along x and y (negative: they share columns or rows), ``[2, N]``."""
    return np.maximum(a.box[:, :2] - b.box[:, 2:], b.box[:, :2] - a.box[:, 2:]).T


def _box_iou(a: Placed, b: Placed) -> np.ndarray:
    shared = np.minimum(a.box[:, 2:], b.box[:, 2:]) - np.maximum(a.box[:, :2], b.box[:, :2])
    intersection = np.maximum(shared, 0).prod(1)
    areas = [(p.box[:, 2:] - p.box[:, :2]).prod(1) for p in (a, b)]
    return intersection / np.maximum(areas[0] + areas[1] - intersection, 1)


def _rows_under(a: Placed, b: Placed, array: np.ndarray) -> np.ndarray:
    """Gather rows of ``a``'s ``array [n, P, ...]`` that lie under the rows of ``b``'s tile; zero outside."""
    p = array.shape[1]
    row = np.arange(b.sprites.tile.shape[1]) + (b.y - a.y)[:, None]  # [N, P of b], in a's frame
    inside = (row >= 0) & (row < p)
    flat = (a.index * p)[:, None] + np.where(inside, row, 0)
    rows = array.reshape(-1, *array.shape[2:]).take(flat, axis=0)
    rows *= inside.reshape(*inside.shape, *[1] * (array.ndim - 2))
    return rows


def _share_a_pixel(a: Placed, b: Placed) -> np.ndarray:
    """Return whether ``a`` and ``b`` have a lit pixel in common; expects intersecting boxes."""
    if a.sprites.ink_rows.shape[-1] > 1 or b.sprites.ink_rows.shape[-1] > 1:
        return ((_tiles_under(a, b) > 0) & (b.sprites.tile[b.index] > 0)).any((1, 2))
    rows_a = _rows_under(a, b, a.sprites.ink_rows[..., 0])  # [N, P]
    rows_b = b.sprites.ink_rows[..., 0].take(b.index, axis=0)
    shift = b.x - a.x  # boxes intersect, so |shift| < 64
    rows_b <<= np.maximum(shift, 0).astype(np.uint64)[:, None]
    rows_b >>= np.maximum(-shift, 0).astype(np.uint64)[:, None]
    rows_b &= rows_a
    return np.asarray(rows_b.any(1))


def _tiles_under(a: Placed, b: Placed) -> np.ndarray:
    """Return the values of ``a`` seen through ``b``'s tile, uint8 ``[N, P, P]``; zero where ``a`` is not."""
    rows = _rows_under(a, b, a.sprites.tile)  # [N, P of b, P of a]
    p_a, p_b = a.sprites.tile.shape[1], b.sprites.tile.shape[1]
    column = np.arange(p_b) + (b.x - a.x)[:, None]  # [N, P of b], in a's frame
    inside = (column >= 0) & (column < p_a)
    seen = np.take_along_axis(rows, np.where(inside, column, 0)[:, None, :], axis=2)
    seen *= inside[:, None, :]
    return seen


def _saturates(earlier: Sequence[Placed], new: Placed) -> np.ndarray:
    """Return whether any pixel of the summed layers exceeds 255 under ``new``'s tile."""
    near = np.zeros(len(new), bool)
    for other in earlier:
        near |= _gaps(other, new).max(0) < 0
    where = np.flatnonzero(near)
    bad = np.zeros(len(new), bool)
    if len(where):
        some = new[where]
        own = some.sprites.tile[some.index].astype(np.uint16)
        total = own.copy()
        for other in earlier:
            total += _tiles_under(other[where], some)
        bad[where] = ((total > 255) & (own > 0)).any((1, 2))
    return bad
