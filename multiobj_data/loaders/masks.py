"""From one mask an entity to one label map, at a fraction of the cost of looking at every mask's every pixel.

A pixel that several entities claim goes to the last of them, one that none claims to entity 0; both are counted.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from multiobj_data.errors import DataError
from multiobj_data.loaders.example import Feature
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

    Most rows of most masks are all 0, or all 255 (background): one comparison of memory tells. In the others, three
    wire bytes a pixel are treated alike, side by side, and only the sum over masks is gathered. ``None`` where that
    does not do: more than 11 masks, unclear pixels, other values, longer strings.
    """
    row = 3 * width
    if mask.body.size != n * height * row or n > _MOST:
        return None
    wire = mask.body.array().reshape(n, height, row)
    begin, stop, _ = crop[0].indices(height)
    total = np.zeros((stop - begin, row), np.uint8)  # claims in the high half, labels in the low one
    seen = np.zeros(n, bool)
    for entity in reversed(
        range(n)
    ):  # the checksum has gone through the record last: its end is in the cache
        start = entity * height * row
        ground = 0xFF if entity == 0 and mask.body.buffer[mask.body.start + 2] == 0xFF else 0
        first, last = _other_rows(mask.body, start, height, width, ground)
        seen[entity] = ground or last > first
        if last > first and not _binary(wire[entity, first:last], width):
            return None
        first, last = (max(first, begin), min(last, stop)) if entity else (begin, stop)
        if last > first:
            total[first - begin : last - begin] += wire[entity, first:last] & np.uint8(_CLAIM + entity)
    cut = np.ascontiguousarray(total[:, 2::3][:, crop[1]])
    if cut.size and (cut.min() < _CLAIM or cut.max() >= 2 * _CLAIM):
        return None  # none or several
    return cut - np.uint8(_CLAIM), seen, 0


_CLAIM = 16
_MOST = 11  # entities: with all of them on one pixel, 11 claims and labels 0 + ... + 10 sum to 231, below 256


def _other_rows(body: Span, start: int, height: int, width: int, ground: int) -> tuple[int, int]:
    """Return the rows outside which every pixel of the mask that starts here is ``ground``, 0 or 255.

    Exact: what lies outside is compared byte by byte with what it has to be; if it is not that, all rows are returned.
    """
    row, begin = 3 * width, body.start + start
    end = begin + height * row
    buffer, other = body.buffer, bytes([0xFF - ground])  # no tag is 0 or 255
    found = buffer.find(other, begin, end)
    if found < 0:
        first = last = height
    else:
        first, last = (found - begin) // row, (buffer.rfind(other, begin, end) - begin) // row + 1
    uniform = _uniform(height, width, ground)
    before, after = uniform[: first * row], uniform[: (height - last) * row]
    if buffer.startswith(before, begin) and buffer.startswith(after, begin + last * row):
        return first, last
    return 0, height


@cache
def _uniform(height: int, width: int, value: int) -> memoryview:
    return memoryview(bytes([*_TAG, value]) * (height * width))


@cache
def _bounds(width: int) -> tuple[np.ndarray, np.ndarray]:
    low, high = ([*_TAG, value] * width for value in (-1, 0))
    return np.array(low, np.int8), np.array(high, np.int8)


def _binary(part: np.ndarray, width: int) -> bool:
    """Return whether all tags are right and all values 0 or 255: ``part`` is ``[h, 3 W]``.

    As signed numbers, values are 0 or -1, so that the least and the greatest of every column have exact bounds.
    """
    signed = part.view(np.int8)
    low, high = _bounds(width)
    return bool(
        (np.minimum.reduce(signed, axis=0) >= low).all() and (np.maximum.reduce(signed, axis=0) <= high).all()
    )


def _neither() -> DataError:
    return DataError("mask: expected values 0 and 255, got others.")
