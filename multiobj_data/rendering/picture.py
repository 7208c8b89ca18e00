"""One scene while it is rendered, plane by plane."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TypeAlias

import numpy as np

from multiobj_data.rendering.bodies import Half, Value, Vector, cosine, interval
from multiobj_data.rendering.textures import look_up
from multiobj_data.rendering.world import FLOOR, SKY, SURFACES, WALL_X, World, unit_circle

RAYS = ((0.0, 0.0), (-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25))
"""Offsets from the pixel's centre, in pixels; the first is the one that decides labels."""

Window: TypeAlias = tuple[int, int, int, int]
"""Pixels ``first row, end row, first column, end column``."""

_TINY = np.float32(1e-12)
_FAR = np.float32(1e4)
_CLEAR = 1e-3  # a shadow is thrown from at least this far: bodies that touch do not shade the line of contact
_WRAP = 0.35  # ambient light is stronger from the light's side, so that surfaces in shade differ too


def within(window: Window) -> tuple[slice, slice]:
    """Return the window as an index of rows and columns."""
    return slice(window[0], window[1]), slice(window[2], window[3])


@cache
def _offsets(canvas: int, focal: float) -> tuple[np.ndarray, np.ndarray]:
    """Return how far rays go right ``[5, 1, W]`` and down ``[5, H, 1]`` for each unit of length ahead."""
    middle = np.arange(canvas) + 0.5 - canvas / 2
    x, y = np.array(RAYS).T[..., None]  # [5, 1] each
    across, below = (((middle + offset) / (focal * canvas)).astype(np.float32) for offset in (x, y))
    return across[:, None, :], below[:, :, None]


class Picture:
    """Scene ``scene`` of a world: first `add` every body, then `throw_shadow` of each, then `colours`.

    Planes are float32 ``[5, H, W]``, one value for each ray of a pixel. A body is treated in the window of
    the picture where it, or its shadow, can be.

    Attributes:
        owner: uint8 ``[5, H, W]``, the label of what each ray meets.
    """

    def __init__(self, world: World, axes: list[list[float]], scene: int, canvas: int) -> None:
        self._world, self._scene = world, scene
        self._eye: Vector = tuple(world.camera.position[scene].tolist())
        self._axes: list[Vector] = [(x, y, z) for x, y, z in axes]
        self._light: Vector = tuple(world.light.direction[scene].tolist())
        bodies = world.bodies
        self._kind = bodies.kind[scene].tolist()
        self._centre = bodies.centre[scene].tolist()
        self._half: list[Half] = [tuple(half) for half in bodies.half[scene].tolist()]
        self._turn = list(zip(*(part.tolist() for part in unit_circle(bodies.yaw[scene])), strict=True))
        self._across, self._below = _offsets(canvas, world.camera.focal)
        self._ray = self._rays(self._axes, (0, canvas, 0, canvas))
        self._add_room()
        self._lit = np.ones_like(self.owner, bool)
        self._point: list[np.ndarray] | None = None

    def _rays(self, axes: Iterable[Vector], window: Window) -> Vector:
        """Return the directions of the rays within a window: each component is linear in the pixel's place.

        Args:
            axes: The camera's axes (ahead, right, down), in the frame that is wanted.
            window: Which pixels.
        """
        rows, columns = within(window)
        across, below = self._across[:, :, columns], self._below[:, rows]
        x, y, z = ((across * right + ahead) + below * down for ahead, right, down in zip(*axes, strict=True))
        return x, y, z

    def _add_room(self) -> None:
        """Meet floor and walls, and the sky above the walls."""
        room, scene = self._world.room, self._scene
        x, y, z = self._ray
        floor = -self._eye[2] / np.minimum(z, -_TINY)
        wall_x = (room.wall_x.item(scene) - self._eye[0]) / np.maximum(x, _TINY)
        wall_y = (room.wall_y.item(scene) - self._eye[1]) / np.maximum(y, _TINY)
        wall = np.minimum(wall_x, wall_y)
        self._depth = np.minimum(np.minimum(floor, wall), _FAR)
        on_wall = WALL_X + (wall_y < wall_x).view(np.uint8)  # the walls' labels follow each other
        self.owner = np.where(floor < wall, np.uint8(FLOOR), on_wall)
        self.owner[self._depth * z + self._eye[2] > room.height.item(scene)] = SKY
        toward = np.array([1, self._light[2], -self._light[0], -self._light[1]], np.float32)
        self._cosine = toward.take(self.owner)

    def add(self, number: int, window: Window) -> np.ndarray:
        """Put a body in front of what lies behind it.

        Args:
            number: Which body.
            window: Where it can be.

        Returns:
            bool ``[rows, columns]``: which pixels of the window are its own, hidden or not.
        """
        kind, half = self._kind[number], self._half[number]
        eye = self._to_body(number, self._eye)
        ray = self._rays([self._turned(number, axis) for axis in self._axes], window)
        near, far = interval(kind, eye, ray, half)
        hit = (near < far) & (near > 0)
        own = hit[0].copy()
        rows, columns = within(window)
        depth = self._depth[:, rows, columns]
        hit &= near < depth
        x, y, z = (start + near * step for start, step in zip(eye, ray, strict=True))
        facing = cosine(kind, (x, y, z), half, self._turned(number, self._light))
        np.copyto(depth, near, where=hit)
        np.copyto(self._cosine[:, rows, columns], facing, where=hit)
        self.owner[:, rows, columns][hit] = SURFACES + number
        return own

    def throw_shadow(self, number: int, window: Window) -> None:
        """Take the light from whatever a body shades.

        Args:
            number: Which body; it does not shade itself, since it is convex.
            window: Where its shadow can be.
        """
        rows, columns = within(window)
        points = [plane[:, rows, columns] for plane in self._points()]
        start = self._to_body(number, points)
        near, far = interval(self._kind[number], start, self._turned(number, self._light), self._half[number])
        shaded = (near < far) & (far > _CLEAR)
        shaded &= self.owner[:, rows, columns] != SURFACES + number
        self._lit[:, rows, columns] &= ~shaded

    def _points(self) -> list[np.ndarray]:
        """Return where in the world each ray ends, three planes; they are final once all bodies are added."""
        if self._point is None:
            self._point = [self._depth * ray + start for ray, start in zip(self._ray, self._eye, strict=True)]
        return self._point

    def _to_body(self, number: int, point: Iterable[Value]) -> Vector:
        x, y, z = (value - middle for value, middle in zip(point, self._centre[number], strict=True))
        return self._turned(number, (x, y, z))

    def _turned(self, number: int, vector: Vector) -> Vector:
        """Return a vector's components along the body's own axes."""
        cos, sin = self._turn[number]
        x, y, z = vector
        return x * cos + y * sin, y * cos - x * sin, z

    def colours(self) -> np.ndarray:
        """Return the picture: uint8 ``[H, W, 3]``."""
        light = self._world.light
        ambient, strength = light.ambient.item(self._scene), light.strength.item(self._scene)
        received = np.maximum(self._cosine, 0) * self._lit * strength
        received += self._cosine * (ambient * _WRAP) + ambient
        owner = self.owner.astype(np.intp)
        received[self.owner == SKY] = 1
        mixed = self._texture()
        first, second = self._albedo()
        image = np.empty((*owner.shape[1:], 3), np.uint8)
        for channel in range(3):
            base, change = first[:, channel], second[:, channel] - first[:, channel]
            seen = (change.take(owner) * mixed + base.take(owner)) * received
            mean = ((seen[0] + seen[1]) + (seen[2] + seen[3]) + seen[4]) * np.float32(0.2)
            image[..., channel] = (
                np.sqrt(np.minimum(mean, 1)) * 255 + 0.5
            )  # grey levels: light to the power 1/2
        return image

    def _albedo(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the two colours of every label, as shares of light: float32 ``[4 + K, 3]`` each."""
        room, bodies = self._world.room.colour[self._scene], self._world.bodies.colour[self._scene]
        colours = (np.concatenate([room[:, side], bodies]) for side in (0, 1))
        first, second = ((colour * colour).astype(np.float32) for colour in colours)
        return first, second

    def _texture(self) -> np.ndarray:
        """Return how much of the second colour there is."""
        textures = np.zeros(SURFACES + len(self._kind), np.intp)  # bodies and sky are plain: number 0
        textures[FLOOR:SURFACES] = self._world.room.texture[self._scene, FLOOR:]
        if textures.any():
            x, y, z = self._points()
            across = np.where(self.owner == WALL_X, y, x)
            up = np.where(self.owner == FLOOR, y, z)
            mixed = look_up(textures.take(self.owner), across, up)
        else:
            mixed = np.zeros_like(self._depth)
        sky = self.owner == SKY
        if sky.any():
            mixed[sky] = np.clip(self._ray[2][sky] * 2, 0, 1)  # paler at the horizon
        return mixed
