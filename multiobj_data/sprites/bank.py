"""`Sprites`: small grey pictures of single objects, kept so that placing and pasting them is fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_ARRAYS = ("tile", "ink_rows", "ink_box", "side")


@dataclass
class Sprites:
    """N objects, each cropped to its own pixels (those that are not zero); filled by `append`.

    A sprite was cut from a square *patch* of ``side`` pixels. The patch is what must lie inside the frame,
    as in the literature; the ink box is what is kept. Letters: P tile size, i.e. the largest ink extent.

    Attributes:
        tile: uint8 ``[N, P, P]``; the ink box at the top left, zero elsewhere.
        ink_rows: uint64 ``[N, P, ceil(P / 64)]``; bit ``c % 64`` of word ``c // 64`` of row ``r`` is set where
            ``tile[r, c]`` is not zero.
        ink_box: int32 ``[N, 4]``, ``x0 y0 x1 y1`` of the ink inside the patch, half-open.
        side: int32 ``[N]``, side of the patch.

    The arrays may have room for more than N; memory is taken only as it is filled.
    """

    tile: np.ndarray
    ink_rows: np.ndarray
    ink_box: np.ndarray
    side: np.ndarray
    n: int

    @classmethod
    def empty(cls, size: int, room: int) -> Sprites:
        """Return room for ``room`` sprites with ink of at most ``size`` pixels a side."""
        return cls(
            tile=np.zeros((room, size, size), np.uint8),
            ink_rows=np.zeros((room, size, -(-size // 64)), np.uint64),
            ink_box=np.zeros((room, 4), np.int32),
            side=np.zeros(room, np.int32),
            n=0,
        )

    @classmethod
    def cut(cls, patches: np.ndarray) -> Sprites:
        """Return the sprites of these patches, uint8 ``[N, S, S]``."""
        sprites = cls.empty(patches.shape[1], len(patches))
        sprites.append(patches, patches.shape[1])
        return sprites

    def append(self, patches: np.ndarray, side: np.ndarray | int) -> np.ndarray:
        """Cut sprites from patches and add them.

        Args:
            patches: uint8 ``[M, S, S]``; a patch smaller than S lies at the top left.
            side: Side of each patch, one for all or ``[M]``.

        Returns:
            Their indices, int64 ``[M]``.
        """
        m, largest, _ = patches.shape
        size = self.tile.shape[1]
        box = tight_boxes(patches != 0)  # [M, 4]
        framed = np.zeros((m, largest + size, largest + size), np.uint8)
        framed[:, :largest, :largest] = patches
        reach = np.arange(size)
        row = box[:, 1, None] + reach + np.arange(m)[:, None] * (largest + size)  # [M, P] in [M * rows]
        pixel = row[:, :, None] * (largest + size) + (box[:, 0, None] + reach)[:, None, :]
        tile = framed.reshape(-1).take(pixel)
        new = slice(self.n, self.n + m)
        self.tile[new] = tile
        self.ink_rows[new] = _pack_rows(tile != 0)
        self.ink_box[new] = box
        self.side[new] = side
        self.n += m
        return np.arange(new.start, new.stop)

    @classmethod
    def concatenate(cls, parts: Sequence[Sprites]) -> tuple[Sprites, list[int]]:
        """Join collections of one tile size; also return where each begins."""
        arrays = {name: np.concatenate([getattr(p, name)[: p.n] for p in parts]) for name in _ARRAYS}
        starts = [0, *np.cumsum([p.n for p in parts]).tolist()]
        return cls(**arrays, n=starts[-1]), starts[:-1]


def tight_boxes(mask: np.ndarray) -> np.ndarray:
    """Return ``x0 y0 x1 y1`` (half-open, int32 ``[N, 4]``) around the true pixels of bool ``[N, H, W]``.

    An empty mask gives 0 0 0 0.
    """
    ends = []
    for axis in (1, 2):  # columns (x), then rows (y)
        line = np.asarray(mask.any(axis))
        first = line.argmax(1)
        last = line.shape[1] - line[:, ::-1].argmax(1)
        ends.append((first, np.where(line.any(1), last, 0)))
    (x0, x1), (y0, y1) = ends
    return np.stack([x0, y0, x1, y1], 1).astype(np.int32)


def _pack_rows(ink: np.ndarray) -> np.ndarray:
    """Pack bool ``[M, P, P]`` into uint64 ``[M, P, words]``, little end first."""
    m, p, _ = ink.shape
    words = -(-p // 64)
    padded = np.zeros((m, p, words * 64), bool)
    padded[:, :, :p] = ink
    return np.packbits(padded, axis=-1, bitorder="little").view("<u8").astype(np.uint64)
