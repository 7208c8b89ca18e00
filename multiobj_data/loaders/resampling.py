"""The ways in which other projects resize images and label maps, told apart.

Two "bilinear" resizes of one image differ by several grey levels, depending on whether the library blurs before it
shrinks and on where it thinks a pixel's centre is. Names here say both.
"""

from __future__ import annotations

from functools import cache
from typing import Literal, get_args

import numpy as np

ImageFilter = Literal[
    "pillow-bilinear",  # antialiased; torchvision on Pillow images
    "pillow-bicubic",  # antialiased; Pillow's default since 7.0
    "bilinear",  # not antialiased, half-pixel centres: TensorFlow 2, torch.nn.functional.interpolate
    "bilinear-corner",  # not antialiased, corner grid: TensorFlow 1's default
    "nearest",  # floor(i * scale): torch's and TensorFlow 1's default
]
MaskFilter = Literal["nearest", "nearest-exact"]
"""``nearest``: pixel ``floor(i * scale)`` (torch, TensorFlow 1); ``nearest-exact``: ``floor((i + 0.5) * scale)``."""


def resize_image(image: np.ndarray, size: int, kind: str) -> np.ndarray:
    """Resize a picture.

    Args:
        image: uint8 ``[H, W, C]``.
        size: Side of the result; 0 leaves the picture as it is.
        kind: One of `ImageFilter`.

    Returns:
        uint8 ``[size, size, C]``.

    Raises:
        ValueError: If there is no such filter.
    """
    if size == 0 or image.shape[:2] == (size, size):
        return image
    if kind not in get_args(ImageFilter):
        raise ValueError(f"kind: expected one of {', '.join(get_args(ImageFilter))}, got {kind!r}.")
    if kind.startswith("pillow-"):
        return _by_pillow(image, size, kind)
    rows, columns = image.shape[:2]
    if kind == "nearest":
        return image[_nearest(rows, size)[:, None], _nearest(columns, size)]
    # Whole numbers of 1/2048: exact sums, the same on any machine.
    (top, down), (left, across) = (
        _taps(length, size, kind == "bilinear-corner") for length in (rows, columns)
    )
    pixels = image.astype(np.int32)
    wide = (
        pixels[top] * (2048 - down)[:, None, None]
        + pixels[np.minimum(top + 1, rows - 1)] * down[:, None, None]
    )
    right = np.minimum(left + 1, columns - 1)
    both = (
        wide[:, left].astype(np.int64) * (2048 - across)[:, None]
        + wide[:, right].astype(np.int64) * across[:, None]
    )
    return ((both + (1 << 21)) >> 22).astype(np.uint8)


def resize_labels(labels: np.ndarray, size: int, kind: str = "nearest") -> np.ndarray:
    """Resize label maps, uint8 ``[..., H, W]`` to ``[..., size, size]``, by one of `MaskFilter`; size 0 leaves them.

    Raises:
        ValueError: If there is no such filter.
    """
    if size == 0 or labels.shape[-2:] == (size, size):
        return labels
    if kind not in get_args(MaskFilter):
        raise ValueError(f"kind: expected one of {', '.join(get_args(MaskFilter))}, got {kind!r}.")
    rows, columns = (_nearest(length, size, exact=kind == "nearest-exact") for length in labels.shape[-2:])
    return labels.take(rows, -2).take(columns, -1)


def _by_pillow(image: np.ndarray, size: int, kind: str) -> np.ndarray:
    from PIL import Image

    method = Image.Resampling[kind.removeprefix("pillow-").upper()]
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    return np.asarray(picture.resize((size, size), method)).reshape(size, size, -1)


@cache
def _nearest(length: int, size: int, exact: bool = False) -> np.ndarray:
    """Return the source pixel of each result pixel, ``[size]``; whole numbers, so that nothing is rounded."""
    i = np.arange(size)
    return (2 * i + 1) * length // (2 * size) if exact else i * length // size


@cache
def _taps(length: int, size: int, corner: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the first of two source pixels, and the weight of the second in 2048ths, ``[size]`` each."""
    i = np.arange(size)
    at = i * (length / size) if corner else np.maximum((i + 0.5) * (length / size) - 0.5, 0)
    first = at.astype(np.int64)
    return first, np.rint((at - first) * 2048).astype(np.int32)
