"""Objects and a background in, pictures and their truth out: image, visible label map, boxes, amodal masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from multiobj_data.composition.overlap import Placed

Blend = Literal["add", "over"]


@dataclass(frozen=True)
class Drawing:
    """B drawn scenes with at most K objects.

    Attributes:
        image: uint8 ``[B, H, W, C]``.
        segments: uint8 ``[B, H, W]``; 0 is background, ``k + 1`` the visible pixels of object k.
        boxes: float32 ``[B, K, 4]``; NaN where absent.
        visible: float32 ``[B, K]``, the share of an object's own pixels that are not hidden; NaN where absent.
        amodal: bool ``[B, K, H, W]`` or ``None``.
    """

    image: np.ndarray
    segments: np.ndarray
    boxes: np.ndarray
    visible: np.ndarray
    amodal: np.ndarray | None


@dataclass(frozen=True)
class Layer:
    """Object ``k`` of those scenes that have one.

    Attributes:
        scene: int64 ``[M]``, the scenes.
        placed: Its sprite and place in each.
        colour: float32 ``[M, C]`` in [0, 1], in which the sprite's own pixels are painted, whatever their grey
            level; ``None`` paints their grey levels.
    """

    scene: np.ndarray
    placed: Placed
    colour: np.ndarray | None = None


def draw(layers: list[Layer], canvas: np.ndarray, *, blend: Blend = "over", amodal: bool = False) -> Drawing:
    """Paste layers back to front.

    Args:
        layers: One an object number, K in all; the last is in front and owns the pixels that it shares.
        canvas: uint8 ``[B, H, W, C]``, contiguous; painted on in place.
        blend: ``"over"`` hides what lies behind; ``"add"`` sums and clips, as the Multi-MNIST literature does.
        amodal: Whether to keep each object's own pixels.

    Returns:
        The scenes.
    """
    b, h, w, c = canvas.shape
    k = len(layers)
    image = canvas.reshape(-1, c)  # [B * H * W, C]
    segments = np.zeros(b * h * w, np.uint8)
    boxes = np.full((b, k, 4), np.nan, np.float32)
    masks = np.zeros(b * k * h * w, bool) if amodal else None
    lit = [_lit_pixels(layer, h, w) for layer in layers]
    for number, (layer, (pixel, value, member)) in enumerate(zip(layers, lit, strict=True)):
        paint = _paint(layer, value, member, c)  # [pixels, C]
        if blend == "add":
            paint = _saturating_sum(image[pixel], paint)
        _whole_pixels(image)[pixel] = _whole_pixels(paint)
        segments[pixel] = number + 1
        boxes[layer.scene, number] = layer.placed.box
        if masks is not None:
            plane = (layer.scene * (k - 1) + number) * (
                h * w
            )  # from a pixel's index to its index in the masks
            masks[pixel + plane[member]] = True
    visible = np.full((b, k), np.nan, np.float32)
    for number, (layer, (pixel, _, member)) in enumerate(zip(layers, lit, strict=True)):
        visible[layer.scene, number] = _mean_by_member(
            segments[pixel] == number + 1, member, len(layer.scene)
        )
    return Drawing(
        canvas,
        segments.reshape(b, h, w),
        boxes,
        visible,
        None if masks is None else masks.reshape(b, k, h, w),
    )


def plain_canvas(ground: np.ndarray, side: int) -> np.ndarray:
    """Return uint8 ``[B, side, side, C]`` in one colour a scene, ``[B, C]``."""
    b, c = ground.shape
    row = np.repeat(ground[:, None], side, 1).reshape(b, 1, side * c)
    canvas = np.empty((b, side, side * c), np.uint8)
    canvas[:] = row  # row by row: many times faster than pixel by pixel
    return canvas.reshape(b, side, side, c)


def _paint(layer: Layer, value: np.ndarray, member: np.ndarray, channels: int) -> np.ndarray:
    """Return what each lit pixel of a layer is painted with, uint8 ``[pixels, C]``."""
    if layer.colour is None:
        return value[:, None] if channels == 1 else np.repeat(value[:, None], channels, 1)
    colour = np.rint(np.float32(255) * layer.colour).astype(np.uint8)  # [M, C]
    return _whole_pixels(colour).take(member).view(np.uint8).reshape(-1, channels)


def _whole_pixels(pixels: np.ndarray) -> np.ndarray:
    """View ``[n, C]`` bytes as n items of C bytes, which NumPy moves several times faster than rows."""
    return np.ascontiguousarray(pixels).view(f"V{pixels.shape[1]}")[:, 0]


def _lit_pixels(layer: Layer, h: int, w: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, for every lit pixel of a layer: its index in ``[B * H * W]``, its value, its row in the layer."""
    placed = layer.placed
    tiles = placed.sprites.tile[placed.index]  # [M, P, P]
    p = tiles.shape[1]
    flat = np.flatnonzero(tiles != 0)
    member = flat // (p * p)
    inside = flat - member * (p * p)
    step = (np.arange(p)[:, None] * w + np.arange(p)).reshape(-1)  # tile offset -> canvas offset
    corner = layer.scene * (h * w) + placed.y * w + placed.x
    return corner[member] + step[inside], tiles.reshape(-1)[flat], member


def _mean_by_member(values: np.ndarray, member: np.ndarray, n: int) -> np.ndarray:
    """Return the mean of bool ``values`` over each member's pixels, ``[n]``; members come in order."""
    start = np.searchsorted(member, np.arange(n + 1))
    total = np.add.reduceat(values.view(np.int8), start[:-1], dtype=np.int32) if n else np.zeros(0)
    return total / np.diff(start)


def _saturating_sum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    total = a + b  # wraps where it overflows, and is then smaller than either
    total[total < a] = 255
    return total
