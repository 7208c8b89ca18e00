"""Which blocks of a label map touch, and which rest on which: the contact graph of every image of a batch.

Gravity points down the picture. Letters: B images, K blocks, H W pixels. Everything is NumPy and boolean, so that
the answers are exact and the same on every machine.
"""

from __future__ import annotations

import numpy as np

ROUND_FROM = 5
"""Width in pixels from which a disc looks different from a square."""


def at_borders(labels: np.ndarray, slots: int, borders: int) -> np.ndarray:
    """Return which labels lie at ``borders`` or more of the picture's four borders: bool ``[B, slots]``.

    Args:
        labels: Whole numbers ``[B, H, W]`` in ``0 .. slots - 1``.
        slots: How many labels there are.
        borders: 1 to 4.
    """
    edges = (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1])
    met = np.zeros((len(labels), slots), int)
    for edge in edges:  # [B, W] or [B, H]
        at = np.zeros_like(met, bool)
        np.put_along_axis(at, edge, True, axis=1)
        met += at
    return met >= borders


def areas(labels: np.ndarray, slots: int) -> np.ndarray:
    """Return the number of pixels of each label ``0 .. slots - 1``: int64 ``[B, slots]``."""
    b = len(labels)
    codes = labels.reshape(b, -1) + slots * np.arange(b)[:, None]
    return np.bincount(codes.ravel(), minlength=b * slots).reshape(b, slots)


def largest_pieces(masks: np.ndarray) -> np.ndarray:
    """Return the largest piece (8-connected) of each mask; the first one in reading order where two are equal.

    Args:
        masks: bool ``[B, K, H, W]``.
    """
    from scipy.ndimage import label

    b, k, h, w = masks.shape
    within = np.zeros((3, 3, 3), bool)
    within[1] = True  # pieces do not reach from one mask into the next
    pieces, n = label(masks.reshape(b * k, h, w), within)
    if not n:
        return masks.copy()
    size = np.bincount(pieces.ravel(), minlength=n + 1)
    size[0] = 0
    owner = np.zeros(n + 1, int)
    at = np.flatnonzero(pieces)
    owner[pieces.ravel()[at]] = at // (h * w)
    order = np.lexsort((-np.arange(n + 1), size))  # ascending: the last one written is the largest
    best = np.zeros(b * k, int)
    best[owner[order]] = order
    best[~masks.reshape(b * k, -1).any(1)] = -1
    return (pieces == best[:, None, None]).reshape(masks.shape)


def touching(masks: np.ndarray, gap: int) -> np.ndarray:
    """Return how many pixels of block j have a pixel of block i near: int64 ``[B, K (i), K (j)]``.

    Near means with at most ``gap`` pixels between, along a row, a column or a diagonal: block i is dilated by a
    square of radius ``gap + 1``.

    Args:
        masks: bool ``[B, K, H, W]``, exclusive.
        gap: Pixels, 0 or more.
    """
    near = _dilated(_dilated(masks, gap + 1, axis=2), gap + 1, axis=3)
    b, k = masks.shape[:2]
    flat = masks.reshape(b, k, -1).astype(np.float32)  # exact: counts are below 2 ** 24
    return np.rint(near.reshape(b, k, -1).astype(np.float32) @ flat.swapaxes(1, 2)).astype(np.int64)


def contact_columns(masks: np.ndarray, gap: int) -> np.ndarray:
    """Return in which columns block i lies right above block j: bool ``[B, K (i), K (j), W]``.

    That is, where a pixel of j lies under one of i with at most ``gap`` pixels between.

    Args:
        masks: bool ``[B, K, H, W]``, exclusive.
        gap: Pixels, 0 or more.
    """
    under = np.zeros_like(masks)
    for step in range(1, min(gap + 2, masks.shape[2])):
        under[:, :, step:] |= masks[:, :, :-step]
    b, k, _, w = masks.shape
    columns = np.empty((b, k, k, w), bool)
    for j in range(k):
        columns[:, :, j] = (under & masks[:, j : j + 1]).any(2)
    return columns


def centres(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the centres of masks as ``x`` and ``y``, float64 ``[B, K]``; NaN for an empty one.

    A pixel covers a unit square, so that one in column 0 has its centre at 0.5.
    """
    across, down = masks.sum(2), masks.sum(3)  # [B, K, W], [B, K, H]
    area = across.sum(-1)
    x = across @ (np.arange(masks.shape[3]) + 0.5)
    y = down @ (np.arange(masks.shape[2]) + 0.5)
    none = np.full(area.shape, np.nan)
    return np.divide(x, area, out=none.copy(), where=area > 0), np.divide(y, area, out=none, where=area > 0)


def span(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where columns begin and end, half-open, float64 ``[...]`` of bool ``[..., W]``; NaN where none is."""
    w = columns.shape[-1]
    some = columns.any(-1)
    first = np.where(some, columns.argmax(-1), np.nan)
    return first, np.where(some, w - columns[..., ::-1].argmax(-1), np.nan)


def reachable(edges: np.ndarray) -> np.ndarray:
    """Return what can be reached along directed edges, itself included: bool ``[B, K, K]`` of the same."""
    k = edges.shape[-1]
    reach = edges | np.eye(k, dtype=bool)
    for _ in range(max(k - 1, 1).bit_length()):  # each product doubles the length of the ways
        reach = (reach.astype(np.float32) @ reach.astype(np.float32)) > 0
    return reach


def _dilated(masks: np.ndarray, radius: int, axis: int) -> np.ndarray:
    """Return masks grown by ``radius`` pixels both ways along an axis."""
    grown = masks.copy()
    source, target = np.moveaxis(masks, axis, 0), np.moveaxis(grown, axis, 0)  # views
    for step in range(1, min(radius, masks.shape[axis] - 1) + 1):
        target[step:] |= source[:-step]
        target[:-step] |= source[step:]
    return grown


def roundness(masks: np.ndarray) -> np.ndarray:
    """Return how well each mask fits a disc: intersection over union, float64 ``[B, K]``; NaN for an empty mask.

    The disc is as wide as the mask and stands where the mask ends below. What other masks cover may be hidden, so
    it counts for neither side. A disc of fewer than `ROUND_FROM` pixels cannot be told from a square: 0.

    Args:
        masks: bool ``[B, K, H, W]``, exclusive.
    """
    left, right = span(np.any(masks, axis=2))
    _, bottom = span(np.any(masks, axis=3))
    radius = (right - left)[..., None, None] / 2  # [B, K, 1, 1]
    y = np.arange(masks.shape[2])[:, None] + 0.5 - (bottom[..., None, None] - radius)  # [B, K, H, 1]
    x = np.arange(masks.shape[3]) + 0.5 - ((left + right) / 2)[..., None, None]  # [B, K, 1, W]
    disc = x * x + y * y <= radius * radius  # [B, K, H, W]; NaN compares as False
    hidden = masks.any(1, keepdims=True) & ~masks
    shared = (masks & disc).sum((2, 3))
    union = ((masks | disc) & ~hidden).sum((2, 3))
    fit = np.divide(shared, union, out=np.full(union.shape, np.nan), where=union > 0)
    return np.where(right - left < ROUND_FROM, 0.0, fit)
