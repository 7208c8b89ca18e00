"""What is in a batch of B scenes: K bodies, a room, a camera and a light; and how it projects to pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SKY, FLOOR, WALL_X, WALL_Y = range(4)
"""Labels of the background, always all four, whether visible or not; bodies follow."""
SURFACES = 4

CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)


def unit_circle(angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return cosine and sine (float64), rounded to float32's precision.

    Mathematics libraries differ in the last bit of these; rounding takes it away.
    """
    return np.cos(angle).astype(np.float32).astype(float), np.sin(angle).astype(np.float32).astype(float)


@dataclass(frozen=True)
class Bodies:
    """K places for bodies in each of B scenes; what places beyond the count hold is ignored.

    Attributes:
        kind: int ``[B, K]``, an index of `bodies.SHAPES`.
        centre: float64 ``[B, K, 3]``.
        half: float64 ``[B, K, 3]``, half sizes.
        yaw: float64 ``[B, K]``, radians about the vertical axis.
        colour: float64 ``[B, K, 3]``, RGB in [0, 1], as displayed in full light.
    """

    kind: np.ndarray
    centre: np.ndarray
    half: np.ndarray
    yaw: np.ndarray
    colour: np.ndarray

    def corners(self) -> np.ndarray:
        """Return the corners of the upright boxes around the bodies: float64 ``[B, K, 8, 3]``."""
        cos, sin = (part[..., None] for part in unit_circle(self.yaw))
        local = self.half[:, :, None] * CORNERS  # [B, K, 8, 3]
        x, y, z = np.moveaxis(local, -1, 0)
        return self.centre[:, :, None] + np.stack([x * cos - y * sin, x * sin + y * cos, z], axis=-1)


@dataclass(frozen=True)
class Room:
    """A floor at z = 0, walls at ``x = wall_x`` and ``y = wall_y`` up to a height, and sky above them.

    Attributes:
        wall_x: float64 ``[B]``.
        wall_y: float64 ``[B]``.
        height: float64 ``[B]``.
        texture: int ``[B, 4]``, an index of `textures.TEXTURES`, of sky (not used), floor, wall, wall.
        colour: float64 ``[B, 4, 2, 3]``: the two colours that the texture mixes, RGB in [0, 1]; for the sky
            those of the horizon and of the zenith.
    """

    wall_x: np.ndarray
    wall_y: np.ndarray
    height: np.ndarray
    texture: np.ndarray
    colour: np.ndarray


@dataclass(frozen=True)
class Light:
    """A far light that throws hard shadows, and light from everywhere.

    Attributes:
        direction: float64 ``[B, 3]``, unit vectors towards the light, ``z > 0``.
        strength: float64 ``[B]``, what a surface that faces the light gets from it.
        ambient: float64 ``[B]``, what every surface gets.
    """

    direction: np.ndarray
    strength: np.ndarray
    ambient: np.ndarray


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without roll.

    Attributes:
        position: float64 ``[B, 3]``.
        target: float64 ``[B, 3]``, the point in the middle of the picture; not straight above or below.
        focal: Focal length in picture widths; the angle of view is ``2 atan(0.5 / focal)``.
    """

    position: np.ndarray
    target: np.ndarray
    focal: float

    def axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return unit vectors along the view, to the right and down: float64 ``[B, 3]`` each."""
        forward = _normalised(self.target - self.position)
        x, y, z = forward.T
        right = _normalised(np.stack([y, -x, np.zeros_like(x)], axis=-1))
        rx, ry, _ = right.T
        down = np.stack([-z * ry, z * rx, x * ry - y * rx], axis=-1)  # forward x right
        return forward, right, down

    def project(self, points: np.ndarray, canvas: int) -> tuple[np.ndarray, np.ndarray]:
        """Return where points appear.

        Args:
            points: ``[B, ..., 3]``.
            canvas: Side of the picture in pixels.

        Returns:
            ``[B, ..., 2]``, x to the right and y down in pixels (the middle of the first pixel is 0.5), and
            ``[B, ...]``, the distance along the view; where that is not positive, the point is behind.
        """
        lead = (len(points),) + (1,) * (points.ndim - 2)
        away = points - self.position.reshape(*lead, 3)
        depth, across, below = (
            (away[..., 0] * a[..., 0] + away[..., 1] * a[..., 1]) + away[..., 2] * a[..., 2]
            for a in (axis.reshape(*lead, 3) for axis in self.axes())
        )
        safe = np.where(depth > 0, depth, np.nan)
        scale = self.focal * canvas / safe
        return np.stack([across * scale, below * scale], axis=-1) + canvas / 2, depth


@dataclass(frozen=True)
class World:
    """B scenes, ready to be rendered."""

    count: np.ndarray
    bodies: Bodies
    room: Room
    camera: Camera
    light: Light


def _normalised(vectors: np.ndarray) -> np.ndarray:
    x, y, z = np.moveaxis(vectors, -1, 0)
    return vectors / np.sqrt((x * x + y * y) + z * z)[..., None]
