"""Pillow's resize for many images at once, bit for bit.

Pillow resizes in two passes (columns, then rows) with fixed-point weights and a rounded 8-bit image in
between. Both passes are matrix products whose terms are whole multiples of 2^-22: float64 holds them and their
sums exactly, so a BLAS of any make gives the same bits as Pillow, at several times its speed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal

import numpy as np

Filter = Literal["nearest", "bilinear", "bicubic"]

_PRECISION = 22  # Pillow's PRECISION_BITS for 8-bit images: 32 - 8 - 2
_MANY = 24  # images a side from which it pays to take each side by itself
_CHUNK = 256  # images at a time, so that the working set stays in the cache


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - x, 0)


def _keys_cubic(x: np.ndarray, a: float = -0.5) -> np.ndarray:
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


_KERNELS: dict[str, tuple[float, Callable[[np.ndarray], np.ndarray]]] = {
    "bilinear": (1.0, _triangle),
    "bicubic": (2.0, _keys_cubic),
}


@cache
def _weights(size_in: int, size_out: int, kind: str) -> np.ndarray:
    """Return the weights ``[size_in + 1, size_out]`` of one pass; the last row, 1/2, is for rounding."""
    support, kernel = _KERNELS[kind]
    scale = size_in / size_out
    stretch = max(scale, 1.0)
    matrix = np.zeros((size_in + 1, size_out))
    matrix[-1] = 0.5
    for out in range(size_out):
        centre = (out + 0.5) * scale
        low = max(int(centre - support * stretch + 0.5), 0)
        high = min(int(centre + support * stretch + 0.5), size_in)
        w = kernel(np.abs((np.arange(low, high) - centre + 0.5) / stretch))
        w = w / w.sum() * (1 << _PRECISION)
        matrix[low:high, out] = np.trunc(w + np.where(w < 0, -0.5, 0.5)) * 2.0**-_PRECISION
    return matrix


@cache
def _weight_table(size_in: int, low: int, high: int, kind: str) -> np.ndarray:
    """Return the weights of every side ``low .. high``: ``[high - low + 1, size_in + 1, high]``, zero padded."""
    table = np.zeros((high - low + 1, size_in + 1, high))
    for side in range(low, high + 1):
        table[side - low, :, :side] = _weights(size_in, side, kind)
    return table


def _two_passes(images: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Resize ``[n, H, H]`` by ``weights [n, H + 1, S]``, or by one matrix for all, to ``[n, S, S]``."""
    narrow = _one_pass(images, weights)  # [n, H, S]
    return _one_pass(narrow.transpose(0, 2, 1), weights).transpose(0, 2, 1)


def _one_pass(images: np.ndarray, weights: np.ndarray) -> np.ndarray:
    n, rows, columns = images.shape
    pixels = np.empty((n, rows, columns + 1))
    pixels[..., :-1] = images
    pixels[..., -1] = 1  # meets the weight 1/2, so that cutting off the fraction rounds
    if weights.ndim == 2:  # one large product instead of n small ones
        sums = (pixels.reshape(-1, columns + 1) @ weights).reshape(n, rows, -1)
    else:
        sums = pixels @ weights
    return np.clip(sums, 0, 255, out=sums).astype(np.uint8)


def resize(images: np.ndarray, side: np.ndarray | int, kind: Filter = "bilinear") -> np.ndarray:
    """Resize grey images, each to a side of its own, as ``PIL.Image.resize`` with the same filter does.

    Args:
        images: uint8 ``[N, H, H]``.
        side: Side of each result in pixels: one for all, or whole numbers ``[N]``.
        kind: ``"bilinear"`` and ``"bicubic"`` are antialiased when shrinking (Pillow's own filters);
            ``"nearest"`` takes the pixel under each centre.

    Returns:
        uint8 ``[N, S, S]`` with S the largest side; smaller results lie at the top left, the rest is zero.
    """
    n, size_in, _ = images.shape
    side = np.broadcast_to(np.asarray(side), n)
    if n == 0:
        return np.zeros((0, 0, 0), np.uint8)
    low, high = int(side.min()), int(side.max())
    if kind == "nearest":
        return _nearest(images, side, high)
    out = np.zeros((n, high, high), np.uint8)
    if n > _MANY * (high - low + 1):
        for one in range(low, high + 1):
            chosen = np.flatnonzero(side == one)
            for start in range(0, len(chosen), _CHUNK):
                part = chosen[start : start + _CHUNK]
                out[part, :one, :one] = _two_passes(images[part], _weights(size_in, one, kind))
        return out
    table = _weight_table(size_in, low, high, kind)
    for start in range(0, n, _CHUNK):
        chunk = slice(start, start + _CHUNK)
        out[chunk] = _two_passes(images[chunk], table[side[chunk] - low])
    return out


def _nearest(images: np.ndarray, side: np.ndarray, high: int) -> np.ndarray:
    n, size_in, _ = images.shape
    step = np.repeat(size_in / side[:, None], high, axis=1)
    step[:, 0] /= 2
    centre = step.cumsum(1)  # [N, S]; added up one by one, for Pillow's very rounding
    inside = np.arange(high) < side[:, None]
    at = np.where(inside, centre, 0).astype(np.int64)
    picked = images[np.arange(n)[:, None, None], at[:, :, None], at[:, None, :]]
    return picked * (inside[:, :, None] & inside[:, None, :])
