"""Objects and a background in, pictures and their truth out: image, visible label map, boxes, amodal masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from multiobj_data.overlap import Placed

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
        colour: float32 ``[M, C]`` in [0, 1], by which the sprite's value is multiplied; ``None`` is white.
    """

    scene: np.ndarray
    placed: Placed
    colour: np.ndarray | None = None


def draw(
    layers: list[Layer], background: np.ndarray, *, blend: Blend = "over", amodal: bool = False
) -> Drawing:
    """Paste layers back to front.

    Args:
        layers: One an object number, K in all; the last is in front and owns the pixels that it shares.
        background: uint8 ``[B, H, W, C]``; not changed.
        blend: ``"over"`` hides what lies behind; ``"add"`` sums and clips, as the Multi-MNIST literature does.
        amodal: Whether to keep each object's own pixels.

    Returns:
        The scenes.
    """
    b, h, w, c = background.shape
    k = len(layers)
    image = background.copy().reshape(-1, c)  # [B * H * W, C]
    segments = np.zeros(b * h * w, np.uint8)
    boxes = np.full((b, k, 4), np.nan, np.float32)
    masks = np.zeros((b, k, h * w), bool) if amodal else None
    lit = [_lit_pixels(layer, h, w) for layer in layers]
    for number, (layer, (pixel, value, member)) in enumerate(zip(layers, lit, strict=True)):
        for channel in range(c):
            plane = image[:, channel]
            paint = value if layer.colour is None else _tint(value, layer.colour[member, channel])
            plane[pixel] = _saturating_sum(plane[pixel], paint) if blend == "add" else paint
        segments[pixel] = number + 1
        boxes[layer.scene, number] = layer.placed.box
        if masks is not None:
            masks[layer.scene[member], number, pixel % (h * w)] = True
    visible = np.full((b, k), np.nan, np.float32)
    for number, (layer, (pixel, _, member)) in enumerate(zip(layers, lit, strict=True)):
        own = np.bincount(member, minlength=len(layer.scene))
        seen = np.bincount(member[segments[pixel] == number + 1], minlength=len(layer.scene))
        visible[layer.scene, number] = seen / own
    return Drawing(
        image.reshape(b, h, w, c),
        segments.reshape(b, h, w),
        boxes,
        visible,
        None if masks is None else masks.reshape(b, k, h, w),
    )


def _lit_pixels(layer: Layer, h: int, w: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, for every lit pixel of a layer: its place in ``[B * H * W]``, its value, its row in the layer."""
    placed = layer.placed
    tiles = placed.sprites.tile[placed.index]  # [M, P, P]
    p = tiles.shape[1]
    flat = np.flatnonzero(tiles != 0)
    member = flat // (p * p)
    inside = flat - member * (p * p)
    step = (np.arange(p)[:, None] * w + np.arange(p)).reshape(-1)  # tile offset -> canvas offset
    corner = layer.scene * (h * w) + placed.y * w + placed.x
    return corner[member] + step[inside], tiles.reshape(-1)[flat], member


def _tint(value: np.ndarray, colour: np.ndarray) -> np.ndarray:
    return np.rint(value * colour).astype(np.uint8)


def _saturating_sum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    total = a + b  # wraps where it overflows, and is then smaller than either
    total[total < a] = 255
    return total
