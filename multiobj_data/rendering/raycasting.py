"""Pictures and their truth from a `World`.

Five rays a pixel: one through its centre, four halfway to its corners. The centre ray alone decides the label
map and the amodal masks; the colour is the mean over all five, taken before the conversion from light to grey
levels, so that edges are antialiased.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multiobj_data.rendering.picture import Picture, Window, within
from multiobj_data.rendering.world import SURFACES, World


@dataclass(frozen=True)
class Rendering:
    """B pictures.

    Attributes:
        image: uint8 ``[B, H, W, 3]``.
        segments: uint8 ``[B, H, W]``: 0 sky, 1 floor, 2 and 3 walls, ``4 + k`` body k.
        boxes: float32 ``[B, K, 4]``, tight around each body's own pixels, hidden or not; NaN where it has none.
        visible: float32 ``[B, K]``, the share of its own pixels that are not hidden; NaN where it has none.
        amodal: bool ``[B, K, H, W]`` or ``None``.
    """

    image: np.ndarray
    segments: np.ndarray
    boxes: np.ndarray
    visible: np.ndarray
    amodal: np.ndarray | None


def render(world: World, canvas: int, *, amodal: bool = True) -> Rendering:
    """Render every scene.

    Args:
        world: The scenes.
        canvas: Side of the pictures in pixels.
        amodal: Whether to keep each body's own pixels.
    """
    b, k = world.bodies.kind.shape
    result = Rendering(
        image=np.empty((b, canvas, canvas, 3), np.uint8),
        segments=np.empty((b, canvas, canvas), np.uint8),
        boxes=np.full((b, k, 4), np.nan, np.float32),
        visible=np.full((b, k), np.nan, np.float32),
        amodal=np.zeros((b, k, canvas, canvas), bool) if amodal else None,
    )
    corners = world.bodies.corners()  # [B, K, 8, 3]
    own = _windows(world, corners, canvas)
    thrown = _windows(world, np.concatenate([corners, _shadows(world, corners)], axis=2), canvas)
    axes = np.stack(world.camera.axes(), axis=1).tolist()  # [B][3][3]
    for scene in range(b):
        picture = Picture(world, axes[scene], scene, canvas)
        areas = []
        for number in range(int(world.count[scene])):
            window = own[scene][number]
            mask = picture.add(number, window)  # its own pixels within the window
            areas.append(mask.sum())
            result.boxes[scene, number] = _tight_box(mask, window)
            if result.amodal is not None:
                result.amodal[scene, number][within(window)] = mask
        result.segments[scene] = picture.owner[0]
        seen = np.bincount(result.segments[scene].reshape(-1), minlength=SURFACES + len(areas))[SURFACES:]
        result.visible[scene, : len(areas)] = [
            part / area if area else np.nan for part, area in zip(seen, areas, strict=True)
        ]
        for number in range(len(areas)):
            picture.throw_shadow(number, thrown[scene][number])
        result.image[scene] = picture.colours()
    return result


def _windows(world: World, points: np.ndarray, canvas: int) -> list[list[Window]]:
    """Return for each body the pixels ``row, row, column, column`` between which all its points appear."""
    pixel, depth = world.camera.project(points, canvas)  # [B, K, P, 2], [B, K, P]
    behind = depth.min(2)[..., None] <= 0.01
    low, high = np.nan_to_num(pixel.min(2)), np.nan_to_num(pixel.max(2))
    low = np.where(behind, 0, np.clip(np.floor(low) - 1, 0, canvas)).astype(int)
    high = np.where(behind, canvas, np.clip(np.ceil(high) + 1, 0, canvas)).astype(int)
    return np.stack([low[..., 1], high[..., 1], low[..., 0], high[..., 0]], axis=-1).tolist()


def _shadows(world: World, points: np.ndarray) -> np.ndarray:
    """Return where points' shadows fall on the floor; what lies between is all that they can shade."""
    light = world.light.direction[:, None, None]  # [B, 1, 1, 3]
    return points - light * (points[..., 2:] / light[..., 2:])


def _tight_box(mask: np.ndarray, window: Window) -> tuple[float, float, float, float]:
    (rows,), (columns,) = np.nonzero(mask.any(1)), np.nonzero(mask.any(0))
    if not len(rows):
        return (np.nan,) * 4
    top, left = window[0], window[2]
    return left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1
