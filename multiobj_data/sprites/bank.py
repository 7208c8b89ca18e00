"""`Sprites`: small grey pictures of single objects, kept so that placing and pasting them is fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


@dataclass
class Sprites:
    """N objects, each cropped to its own pixels (those that are not zero); filled by `append`.

    A sprite was cut from a square *patch* of ``side`` pixels. The patch is what must lie inside the frame,
    as in the literature; the ink box is what is kept. Letters: P tile size, i.e. the largest ink extent.

    Attributes:
        tile: uint8 ``[N, P, P]``; the ink box at the top left, zero elsewhere.
        ink_rows: uint64 ``[N + 1, 2 P]``; bit c of entry ``P + r`` is set where ``tile[r, c]`` is not zero; all
            else is zero, so that rows above and below a sprite can be read as well (see `rows_from`). ``None``
            for tiles wider than 64 pixels.
        ink_box: int32 ``[N, 4]``, ``x0 y0 x1 y1`` of the ink inside the patch, half-open.
        side: int32 ``[N]``, side of the patch.
        tables: What was found out about pairs of these sprites, by overlap rule; ``None`` where they are too many,
            or not always the same, to note it.

    The arrays may have room for more than N; memory is taken only as it is filled.
    """

    tile: np.ndarray
    ink_rows: np.ndarray | None
    ink_box: np.ndarray
    side: np.ndarray
    n: int
    tables: dict[Any, Any] | None = None

    @classmethod
    def empty(cls, size: int, room: int) -> Sprites:
        """Return room for ``room`` sprites with ink of at most ``size`` pixels a side."""
        return cls(
            tile=np.zeros((room, size, size), np.uint8),
            ink_rows=np.zeros((room + 1, 2 * size), np.uint64) if size <= 64 else None,
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

    @property
    def room(self) -> int:
        """How many sprites there is room for."""
        return len(self.side)

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
        windows = sliding_window_view(framed, (size, size), axis=(1, 2))
        tile = windows[np.arange(m), box[:, 1], box[:, 0]]  # [M, P, P]
        new = slice(self.n, self.n + m)
        self.tile[new] = tile
        if self.ink_rows is not None:
            self.ink_rows[new, size:] = _pack_rows(tile != 0)[..., 0]
        self.ink_box[new] = box
        self.side[new] = side
        self.n += m
        return np.arange(new.start, new.stop)

    def rows_from(self, index: np.ndarray, first: np.ndarray) -> np.ndarray:
        """Return P rows of each sprite's ink bits, beginning at row ``first``; zero outside the sprite.

        Args:
            index: Sprites, int64 ``[M]``.
            first: Rows in ``-P .. P``, int64 ``[M]``.

        Returns:
            uint64 ``[M, P]``.
        """
        size = self.tile.shape[1]
        # Windows over all rows in a line, in which P empty rows lie before, between and after the sprites.
        return self._row_windows[index * (2 * size) + size + first]

    @cached_property
    def _row_windows(self) -> np.ndarray:
        if self.ink_rows is None:
            raise ValueError("sprites wider than 64 pixels have no ink rows.")
        line = self.ink_rows.reshape(-1)
        return sliding_window_view(line, self.tile.shape[1])

    @classmethod
    def gather(cls, parts: Sequence[tuple[Sprites, np.ndarray]]) -> Sprites:
        """Return chosen sprites of several collections of one tile size, in order, as a collection."""
        names = ("tile", "ink_box", "side")
        tile, ink_box, side = (np.concatenate([getattr(s, name)[i] for s, i in parts]) for name in names)
        rows = [s.ink_rows[i] for s, i in parts if s.ink_rows is not None]
        ink_rows = (
            np.concatenate([*rows, np.zeros_like(rows[0], shape=(1, rows[0].shape[1]))]) if rows else None
        )
        return cls(tile, ink_rows, ink_box, side, n=len(side))


def tight_boxes(mask: np.ndarray) -> np.ndarray:
    """Return ``x0 y0 x1 y1`` (half-open, int32 ``[N, 4]``) around the true pixels of bool ``[N, H, W]``.

    An empty mask gives 0 0 0 0.
    """
    words = _pack_rows(mask)  # [N, H, W / 64]: 64 pixels at a time
    columns = np.bitwise_or.reduce(words, axis=1).astype("<u8").view(np.uint8)  # [N, W / 8]
    lines = np.unpackbits(columns, axis=-1, bitorder="little") != 0, np.bitwise_or.reduce(words, axis=-1) != 0
    ends = []
    for line in lines:  # along x, then along y
        first = line.argmax(1)
        last = line.shape[1] - line[:, ::-1].argmax(1)
        ends.append((first, np.where(line.any(1), last, 0)))
    (x0, x1), (y0, y1) = ends
    return np.stack([x0, y0, x1, y1], 1).astype(np.int32)


def _pack_rows(mask: np.ndarray) -> np.ndarray:
    """Pack bool ``[N, H, W]`` into uint64 ``[N, H, W / 64]``, bit ``c % 64`` of word ``c // 64`` for column c."""
    n, h, w = mask.shape
    padded = np.zeros((n, h, -(-w // 64) * 64), bool)
    padded[:, :, :w] = mask
    words = np.packbits(padded, bitorder="little").view(
        "<u8"
    )  # as one line: several times faster than by axis
    return words.astype(np.uint64, copy=False).reshape(n, h, padded.shape[2] // 64)
