"""Boxes of segmentations: the tight half-open box around each mask or label."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from metrics.libraries import is_whole, library_of, whole_numbers
from multiobj_data.arrays import Array, as_double, is_tensor, like
from multiobj_data.scenes import expect

_MASKS = 2**33  # bytes of the masks that boxes are found by


def boxes_of_masks(masks: Array) -> Array:
    """Return the smallest box that holds each mask.

    Args:
        masks: bool ``[B, K, H, W]``. Soft masks must be cut by the caller, who knows at what level.

    Returns:
        float64 ``[B, K, 4]``: ``x0 y0 x1 y1`` in pixels, half-open (one pixel has area 1); NaN for an empty mask.
        In the library and on the device of ``masks``.

    Raises:
        ValueError: If ``masks`` is no bool array of that shape.
    """
    expect("masks", masks, (None, None, None, None), "b")
    if not all(masks.shape[2:]):
        raise ValueError(f"masks: expected pixels, got {list(masks.shape[2:])} (H, W).")
    library = library_of(masks)
    x0, x1 = _extent(masks.any(2))
    y0, y1 = _extent(masks.any(3))
    boxes = library.stack([x0, y0, x1, y1], -1)  # [B, K, 4]
    empty = ~masks.any(3).any(2)[..., None]  # [B, K, 1]
    return library.where(empty, float("nan"), as_double(boxes, masks))


def boxes_of_labels(
    labels: Array, *, background: Sequence[int] = (0,), num_labels: int | None = None
) -> Array:
    """Return the smallest box around each object of a label map.

    Args:
        labels: Whole numbers ``[B, H, W]``; negative ones belong to nothing.
        background: Labels that are no objects.
        num_labels: Objects are the labels below this; by default, up to the largest that occurs. Give it where
            batches must have equal shapes.

    Returns:
        float64 ``[B, K, 4]``, by increasing label; NaN for a label without pixels. In the library and on the device
        of ``labels``.

    Raises:
        ValueError: If ``labels`` are not whole numbers of that shape, one is ``num_labels`` or more, or labels are so
            large that they had better be numbered anew.
    """
    expect("labels", labels, (None, None, None), "iu")
    if num_labels is not None and not is_whole(num_labels, 1):
        raise ValueError(f"num_labels: expected a whole number of 1 or more, got {num_labels!r}.")
    behind = set(whole_numbers("background", background))
    labels = labels.long() if is_tensor(labels) else labels.astype(np.int64)
    highest = int(labels.max()) if all(labels.shape) else -1
    if num_labels is None:
        num_labels = highest + 1
    elif highest >= num_labels:
        raise ValueError(f"labels: expected labels below {num_labels}, got {highest}.")
    if num_labels * math.prod(labels.shape) > _MASKS:
        raise ValueError(
            f"labels: masks of {num_labels} labels are too large for {list(labels.shape)}; number each image's labels "
            "anew by metrics.compact_labels, or give fewer images."
        )
    objects = np.array([label for label in range(num_labels) if label not in behind], dtype=np.int64)
    return boxes_of_masks(labels[:, None] == like(objects, labels)[None, :, None, None])


def _extent(occupied: Array) -> tuple[Array, Array]:
    """Return first and one past the last place along the last axis of bool ``[B, K, N]``: ``[B, K]`` each."""
    places = like(np.arange(occupied.shape[-1]), occupied) + 1  # 1..N, so that none is mistaken for "empty"
    last = (occupied * places).argmax(-1) + 1
    first = (occupied * (len(places) + 1 - places)).argmax(-1)
    return first, last
