"""From one mask an entity to one label map, at a fraction of the cost of looking at every mask's every pixel.

A pixel that several entities claim goes to the last of them, one that none claims to entity 0; both are counted.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from multiobj_data.errors import DataError
from multiobj_data.loaders.example import Feature, longest_row
from multiobj_data.loaders.spans import Span

Crop = tuple[slice, slice]
WHOLE: Crop = (slice(None), slice(None))
_TAG = (0x0A, 1)  # before every value: field 1, length 1


def label_map(masks: np.ndarray, crop: Crop = WHOLE) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the label map of masks.

    Args:
        masks: uint8 ``[N, H, W]`` with any strides, 0 or 255.
        crop: Rows and columns of the label map.

    Returns:
        ``segments`` uint8 ``[h, w]``; ``seen`` bool ``[N]``, which entities have a pixel (before the crop); how many
        pixels of the crop are claimed by none or by several entities.

    Raises:
        DataError: If a value is neither 0 nor 255.
    """
    masks = np.ascontiguousarray(masks)
    claims = masks != 0
    if not np.array_equal(masks == 255, claims):
        raise _neither()
    cut = claims[(slice(None), *crop)]
    segments = np.zeros(cut.shape[1:], np.uint8)
    for entity in range(1, len(cut)):
        segments[cut[entity]] = entity
    unclear = int((cut.sum(0) != 1).sum())
    return segments, claims.any((1, 2)), unclear


def wire_label_map(
    mask: Feature, n: int, height: int, width: int, crop: Crop = WHOLE
) -> tuple[np.ndarray, np.ndarray, int] | None:
    """Do what `label_map` does on a list of one-byte strings as it is on the wire, masks first ``[N, H, W]``.

    For large pictures: most rows of most masks are all 0, or all 255 (background), which one comparison of memory
    tells. In the others, three wire bytes a pixel are treated alike, side by side, and only the sum over masks is
    gathered. ``None`` where that does not do: more than 11 masks, unclear pixels, other values, longer strings.
    """
    row = 3 * width
    if mask.body.size != n * height * row or n > MOST:
        return None
    wire = mask.body.array().reshape(n, height, row)
    (top, bottom, _), (left, right, _) = crop[0].indices(height), crop[1].indices(width)
    total = np.zeros(
        (bottom - top, 3 * (right - left)), np.uint8
    )  # claims in the high half, labels in the low one
    seen = np.zeros(n, bool)
    for entity in reversed(
        range(n)
    ):  # the checksum has gone through the record last: its end is in the cache
        start = entity * height * row
        ground = 0xFF if entity == 0 and mask.body.buffer[mask.body.start + 2] == 0xFF else 0
        first, last = _other_rows(mask.body, start, height, width, ground)
        seen[entity] = ground or last > first
        low, high = left, right  # columns outside which it claims nothing
        if last > first:
            columns = _claimed_columns(wire[entity, first:last], width)
            if columns is None:
                return None
            low, high = max(low, columns[0]), min(high, columns[1])
        first, last = sorted((min(max(first, top), bottom), min(max(last, top), bottom)))
        if ground:
            total[: first - top] += np.uint8(_CLAIM)
            total[last - top :] += np.uint8(_CLAIM)
        if last > first and high > low:
            part = wire[entity, first:last, 3 * low : 3 * high] & np.uint8(_CLAIM + entity)
            total[first - top : last - top, 3 * (low - left) : 3 * (high - left)] += part
    cut = np.ascontiguousarray(total[:, 2::3])
    if cut.size and (cut.min() < _CLAIM or cut.max() >= 2 * _CLAIM):
        return None  # none or several
    cut -= np.uint8(_CLAIM)
    return cut, seen, 0


def wire_label_maps(
    wire: np.ndarray, n: int, height: int, width: int, masks_last: bool = False
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the label maps of many small pictures at once.

    Args:
        wire: uint8 ``[B, 3 N H W]``, lists of one-byte strings as they are on the wire, the last axis contiguous.
        n: How many masks a picture has, at most `MOST`.
        height: H.
        width: W.
        masks_last: Whether they are ``[H, W, N]`` rather than ``[N, H, W]``.

    Returns:
        ``segments`` uint8 ``[B, H, W]`` and bool ``[B]``, in which of them each pixel has one mask; in the others,
        they are meaningless. ``None`` if any picture has other values or longer strings.
    """
    b, area = len(wire), height * width
    long = 3 * longest_row(n * area)
    if not _binary(wire.reshape(b, -1, long), long // 3):
        return None
    values = wire.reshape(b, area, n, 3)[..., 2] if masks_last else wire.reshape(b, n, 3 * area)
    total = np.zeros((b, area if masks_last else 3 * area), np.uint8)
    part = np.empty_like(total)
    for entity in range(n):
        of_entity = values[:, :, entity] if masks_last else values[:, entity]
        total += np.bitwise_and(of_entity, np.uint8(_CLAIM + entity), out=part)
    if not masks_last:
        total = np.ascontiguousarray(total[:, 2::3])
    clear = (total.min(1) >= _CLAIM) & (total.max(1) < 2 * _CLAIM)
    total -= np.uint8(_CLAIM)
    return total.reshape(b, height, width), clear


_CLAIM = 16
MOST = 11  # entities: with all of them on one pixel, 11 claims and labels 0 + ... + 10 sum to 231, below 256
_STEPS = 32, 8  # rows compared at once; where finer steps end, the masks are looked at


def _other_rows(body: Span, start: int, height: int, width: int, ground: int) -> tuple[int, int]:
    """Return rows outside which every pixel of the mask that starts here is ``ground``, 0 or 255.

    Exact: what lies outside is compared byte by byte with what it has to be.
    """
    row, begin, buffer = 3 * width, body.start + start, body.buffer
    uniform = _uniform(height, width, ground)
    if buffer.startswith(uniform, begin):
        return 0, 0
    first, last = 0, height
    for step in _STEPS:
        some = uniform[: step * row]
        while first + step <= last and buffer.startswith(some, begin + first * row):
            first += step
        while last - step >= first and buffer.startswith(some, begin + (last - step) * row):
            last -= step
    return first, last


@cache
def _uniform(height: int, width: int, value: int) -> memoryview:
    return memoryview(bytes([*_TAG, value]) * (height * width))


@cache
def _bounds(width: int) -> tuple[np.ndarray, np.ndarray]:
    low, high = ([*_TAG, value] * width for value in (-1, 0))
    return np.array(low, np.int8), np.array(high, np.int8)


def _extremes(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the greatest of every column, as signed numbers: values are 0 or -1 then."""
    signed, axes = part.view(np.int8), tuple(range(part.ndim - 1))
    return np.minimum.reduce(signed, axis=axes), np.maximum.reduce(signed, axis=axes)


def _binary(part: np.ndarray, width: int) -> bool:
    """Return whether all tags are right and all values 0 or 255: ``part`` is ``[..., 3 W]``."""
    least, greatest = _extremes(part)
    low, high = _bounds(width)
    return bool((least >= low).all() and (greatest <= high).all())


def _claimed_columns(part: np.ndarray, width: int) -> tuple[int, int] | None:
    """Return the columns outside which ``part``, ``[h, 3 W]``, is 0; ``None`` if it is not as `_binary` wants it."""
    least, greatest = _extremes(part)
    low, high = _bounds(width)
    if not ((least >= low).all() and (greatest <= high).all()):
        return None
    claimed = np.flatnonzero(least[2::3])
    return (int(claimed[0]), int(claimed[-1]) + 1) if len(claimed) else (0, 0)


def _neither() -> DataError:
    return DataError("mask: expected values 0 and 255, got others.")
