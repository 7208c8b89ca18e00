"""How hard a scene is, from its truth alone: per-image columns to join with any score.

Every function takes `Scenes` and returns float64 ``[B]`` or ``[B, K]``; NaN where nothing can be said (no object, no
second object, nothing visible). Distances and sizes are in pixels, contrasts in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multiobj_data.scenes import Scenes

RING = 3
"""Pixels around an object's box in which the background counts as its surroundings."""

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
"""Weights of red, green and blue in luminance (ITU-R BT.709), on stored values."""

_AT_ONCE = 2**19  # values of images worked on at a time, so that they stay in the cache

DIFFICULTIES = {
    "true_count": "number of objects",
    "smallest_visible_fraction": "visible share of the most hidden object",
    "mean_visible_fraction": "visible share of the objects, on average",
    "smallest_distance": "pixels between the centres of the two nearest boxes",
    "smallest_gap": "pixels between the two nearest boxes; 0 where they touch or overlap",
    "smallest_contrast": "colour distance of the faintest object to the background around it",
    "smallest_luminance_contrast": "the same in luminance",
    "smallest_size": "pixels of the smallest object, hidden ones too where they are stored",
    "mean_size": "pixels of the objects, on average",
}
"""Column -> what it says."""


def difficulty(scenes: Scenes) -> dict[str, np.ndarray]:
    """Return every column of `DIFFICULTIES`, float64 ``[B]``."""
    fraction, size, contrast = visible_fraction(scenes), object_size(scenes), object_contrast(scenes)
    return {
        "true_count": scenes.count.astype(np.float64),
        "smallest_visible_fraction": _smallest(fraction),
        "mean_visible_fraction": _mean(fraction),
        "smallest_distance": smallest_distance(scenes),
        "smallest_gap": smallest_gap(scenes),
        "smallest_contrast": _smallest(contrast.colour),
        "smallest_luminance_contrast": _smallest(contrast.luminance),
        "smallest_size": _smallest(size),
        "mean_size": _mean(size),
    }


# -- one value an object, [B, K]


def visible_size(scenes: Scenes) -> np.ndarray:
    """Return the number of visible pixels of each object, float64 ``[B, K]``; NaN where there is none."""
    return np.where(scenes.present, _sums(scenes, None), np.nan)


def object_size(scenes: Scenes) -> np.ndarray:
    """Return the number of pixels of each object, hidden ones too if amodal masks are stored, float64 ``[B, K]``."""
    if scenes.amodal is None:
        return visible_size(scenes)
    own = scenes.amodal.sum((2, 3), dtype=np.float64)
    return np.where(scenes.present, own, np.nan)


def visible_fraction(scenes: Scenes) -> np.ndarray:
    """Return the visible share of each object's own pixels, float64 ``[B, K]``.

    From the amodal masks; without them from the factor ``visible_fraction``; else NaN throughout. An object without
    a pixel of its own has NaN.
    """
    if scenes.amodal is not None:
        own = object_size(scenes)
        return visible_size(scenes) / np.where(own > 0, own, np.nan)
    if "visible_fraction" in scenes.factors:
        return np.where(scenes.present, scenes.factors["visible_fraction"].astype(np.float64), np.nan)
    return np.full(scenes.present.shape, np.nan)


@dataclass(frozen=True, eq=False)
class Contrast:
    """Distance of each object's mean colour to its surroundings', float64 ``[B, K]`` in [0, 1].

    Attributes:
        colour: Root mean square over channels.
        luminance: Absolute difference of luminances (the mean over channels, if these are not red, green, blue).
    """

    colour: np.ndarray
    luminance: np.ndarray


def object_contrast(scenes: Scenes, ring: int = RING) -> Contrast:
    """Compare the mean colour of each object's visible pixels with that of the background around it.

    The surroundings are the background pixels inside the object's box widened by ``ring`` pixels on each side. NaN
    for an object that is hidden or has no background there.
    """
    chunk = max(1, _AT_ONCE // max(1, scenes.image[0].size)) if len(scenes) else 1
    parts = [_apart(scenes[i : i + chunk], ring) for i in range(0, len(scenes), chunk)]
    apart = np.concatenate([*parts, np.empty((0, scenes.boxes.shape[1], scenes.image.shape[-1]))])
    c = apart.shape[-1]
    weights = LUMINANCE if c == 3 else np.full(c, 1 / c)
    return Contrast(np.sqrt((apart**2).mean(-1)), np.abs(apart @ weights))


def _apart(scenes: Scenes, ring: int) -> np.ndarray:
    """Return mean colour of objects minus that of their surroundings, float64 ``[B, K, C]`` in [-1, 1] or NaN."""
    b, h, w, c = scenes.image.shape
    planes = np.moveaxis(scenes.image, -1, 1)  # [B, C, H, W]
    area = visible_size(scenes)  # [B, K]
    inside = np.stack([_sums(scenes, planes[:, i]) for i in range(c)], -1)  # [B, K, C]
    ground = scenes.segments < scenes.background_segments  # [B, H, W]
    summed = np.zeros(
        (b, c + 1, h + 1, w + 1), np.int64
    )  # integral images of the background's colour and area
    inner = summed[:, :, 1:, 1:]
    inner[:, :c], inner[:, c] = planes * ground[:, None], ground
    np.cumsum(inner, axis=2, out=inner)
    np.cumsum(inner, axis=3, out=inner)
    around = _box_sums(summed, _widened(scenes.boxes, ring, h, w))  # [B, K, C + 1]
    known = (area > 0) & (around[..., -1] > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = inside / area[..., None] - around[..., :-1] / around[..., -1:]
    return np.where(known[..., None], apart / 255, np.nan)


def _sums(scenes: Scenes, values: np.ndarray | None) -> np.ndarray:
    """Sum ``values [B, H, W]`` (1 for ``None``) over the visible pixels of each object: float64 ``[B, K]``."""
    b, k = scenes.present.shape
    labels = scenes.background_segments + k
    codes = scenes.segments + labels * np.arange(b)[:, None, None]
    weights = None if values is None else values.ravel()
    sums = np.bincount(codes.ravel(), weights, minlength=b * labels).reshape(b, labels)
    return sums[:, scenes.background_segments :].astype(np.float64)


def _widened(boxes: np.ndarray, ring: int, h: int, w: int) -> np.ndarray:
    """Return whole-pixel boxes widened by ``ring`` and cut at the frame, int64 ``[B, K, 4]``; empty for NaN."""
    boxes = np.nan_to_num(boxes, nan=-ring)
    outward = np.concatenate([np.floor(boxes[..., :2]) - ring, np.ceil(boxes[..., 2:]) + ring], -1)
    return np.clip(outward, 0, [w, h, w, h]).astype(np.int64)


def _box_sums(summed: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Read the sums inside boxes ``[B, K, 4]`` from integral images ``[B, C, H+1, W+1]``: ``[B, K, C]``."""
    row = np.arange(len(summed))[:, None]
    x0, y0, x1, y1 = np.moveaxis(boxes, -1, 0)
    return summed[row, :, y1, x1] - summed[row, :, y0, x1] - summed[row, :, y1, x0] + summed[row, :, y0, x0]


# -- pairs of objects


def smallest_distance(scenes: Scenes) -> np.ndarray:
    """Return the distance between the centres of the two nearest boxes, float64 ``[B]``; NaN below two objects."""
    centres = (scenes.boxes[..., :2] + scenes.boxes[..., 2:]).astype(np.float64) / 2  # [B, K, 2]
    apart = centres[:, :, None] - centres[:, None]
    return _nearest(np.hypot(apart[..., 0], apart[..., 1]))


def smallest_gap(scenes: Scenes) -> np.ndarray:
    """Return the distance between the two nearest boxes, 0 where two touch or overlap, float64 ``[B]``."""
    boxes = scenes.boxes.astype(np.float64)
    low, high = boxes[..., :2], boxes[..., 2:]  # [B, K, 2]
    gap = np.maximum(low[:, :, None] - high[:, None], low[:, None] - high[:, :, None])
    gap = np.maximum(gap, 0)  # NaN stays
    return _nearest(np.hypot(gap[..., 0], gap[..., 1]))


def _nearest(distance: np.ndarray) -> np.ndarray:
    """Return the smallest distance ``[B, K, K]`` between two different objects; NaN where there are not two."""
    first, second = np.triu_indices(distance.shape[1], k=1)
    return _smallest(distance[:, first, second])


def _smallest(values: np.ndarray) -> np.ndarray:
    """Return the smallest known value of each row ``[B, N]``; NaN if none is known."""
    least = np.where(np.isnan(values), np.inf, values).min(1, initial=np.inf)
    return np.where(np.isinf(least), np.nan, least)


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean of the known values of each row ``[B, N]``; NaN if none is known."""
    known = ~np.isnan(values)
    n = known.sum(1)
    return np.where(known, values, 0).sum(1) / np.where(n > 0, n, np.nan)
