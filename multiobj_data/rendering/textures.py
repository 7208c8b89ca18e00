"""What floor and walls look like: periodic grey tiles, mixed between two colours.

A tile is float32 ``[SIDE, SIDE]`` in [0, 1] and covers ``SIDE / TEXELS`` units of length in both directions.
"""

from __future__ import annotations

from functools import cache

import numpy as np

SIDE = 128
"""Texels along a side of a tile, a power of two."""
TEXELS = 16
"""Texels in a unit of length."""
TEXTURES = ("plain", "checker", "stripes", "tiles", "noise", "bricks")
"""Names by texture number."""


@cache
def tiles() -> np.ndarray:
    """Return all tiles, float32 ``[len(TEXTURES), SIDE, SIDE]``; rows are the second coordinate (up a wall)."""
    row, column = np.mgrid[:SIDE, :SIDE]
    cell = TEXELS
    return np.stack(
        [
            np.zeros((SIDE, SIDE)),
            (row // cell + column // cell) % 2,
            column // (cell // 2) % 2,
            (row % cell < 2) | (column % cell < 2),  # grout between tiles
            _noise(),
            (row % (cell // 2) < 1) | ((column + row // (cell // 2) % 2 * (cell // 2)) % cell < 1),
        ]
    ).astype(np.float32)


def _noise() -> np.ndarray:
    """Value noise: random lattices of four spacings, interpolated smoothly and periodically."""
    rng = np.random.default_rng(0)  # a constant of the texture, not of the scene
    total = np.zeros((SIDE, SIDE))
    for octave, spacing in enumerate((32, 16, 8, 4)):
        total += _smooth(rng.random((SIDE // spacing,) * 2), spacing) / 1.6**octave
    return (total - total.min()) / (total.max() - total.min())


def _smooth(lattice: np.ndarray, spacing: int) -> np.ndarray:
    at = np.arange(SIDE)
    low, share = at // spacing, at % spacing / spacing
    share = share * share * (3 - 2 * share)  # no creases at the lattice
    high = (low + 1) % len(lattice)
    rows = lattice[low] + (lattice[high] - lattice[low]) * share[:, None]  # [SIDE, n]
    return rows[:, low] + (rows[:, high] - rows[:, low]) * share  # [SIDE, SIDE]


def look_up(texture: np.ndarray, across: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Return the tiles' values at places on surfaces.

    Args:
        texture: Texture numbers, whole numbers of any shape.
        across: First coordinate in units of length, float32 of the same shape, above -100.
        up: Second coordinate, likewise.

    Returns:
        float32 in [0, 1], same shape.
    """
    shift = 16.0 * SIDE / TEXELS  # 16 whole tiles: conversion to whole numbers rounds towards 0
    column = ((across + shift) * TEXELS).astype(np.int32) & (SIDE - 1)
    row = ((up + shift) * TEXELS).astype(np.int32) & (SIDE - 1)
    return tiles().reshape(-1).take((texture * SIDE + row) * SIDE + column)
