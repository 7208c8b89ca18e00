"""What 3-D generators share: random rooms, lights and colours, and scenes from what was rendered."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from multiobj_data.errors import UsageError, did_you_mean
from multiobj_data.factors.colours import hsv_to_rgb
from multiobj_data.rendering.textures import TEXTURES
from multiobj_data.rendering.world import SKY, SURFACES, WALL_X, WALL_Y, Light, World, unit_circle

SKIES = ((0.55, 0.18, 0.97), (0.60, 0.45, 0.90))  # HSV at the horizon and above: turns, 0..1, 0..1


def parse_names(setting: str, text: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return the names of a comma-separated text, each known and given once.

    Raises:
        UsageError: With the setting's name.
    """
    known = tuple(known)
    names = tuple(part.strip() for part in text.split(","))
    for name in names:
        if name not in known:
            raise UsageError(
                f"{setting}: expected names out of {', '.join(known)}, got {name!r}.{did_you_mean(name, known)}"
            )
    if len(set(names)) < len(names):
        raise UsageError(f"{setting}: expected each name once, got {text!r}.")
    return names


def distinct_hues(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """Return hues in turns ``[n, k]``, evenly spread over the circle with some play, in random order."""
    place = np.argsort(rng.random((n, k)), axis=1)
    return (place + rng.uniform(-0.3, 0.3, (n, k))) / max(k, 1) + rng.random((n, 1))


def strong_colours(rng: np.random.Generator, hue: np.ndarray) -> np.ndarray:
    """Return colours of these hues, saturated and bright: float64 ``[..., 3]``."""
    saturation, value = rng.uniform(0.65, 0.95, hue.shape), rng.uniform(0.8, 1.0, hue.shape)
    return hsv_to_rgb(np.stack([hue, saturation, value], axis=-1)).astype(float)


def textured_colours(
    rng: np.random.Generator, n: int, textures: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Draw what floor, walls and sky look like: pale colours, both walls alike.

    Args:
        rng: Source of randomness.
        n: Scenes.
        textures: Names to choose from.

    Returns:
        `Room.texture` ``[n, 4]`` and `Room.colour` ``[n, 4, 2, 3]``.
    """
    numbers = np.array([TEXTURES.index(name) for name in textures])
    texture = numbers[rng.integers(len(numbers), size=(n, SURFACES))]
    hue, saturation = rng.random((n, SURFACES)), rng.uniform(0.05, 0.35, (n, SURFACES))
    value = rng.uniform(0.6, 0.85, (n, SURFACES))
    contrast = rng.uniform(0.12, 0.3, (n, SURFACES))
    both = [np.stack([hue, saturation, value + sign * contrast / 2], axis=-1) for sign in (-1, 1)]
    colour = hsv_to_rgb(np.clip(np.stack(both, axis=2), 0, 1)).astype(float)  # [n, 4, 2, 3]
    colour[:, SKY] = hsv_to_rgb(np.array(SKIES))
    texture[:, WALL_Y], colour[:, WALL_Y] = texture[:, WALL_X], colour[:, WALL_X]
    texture[:, SKY] = 0
    return texture, colour


def plain_colours(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw floor, walls (both alike) and sky of any hue, untextured; returns as `textured_colours`."""
    hue, value = rng.random((n, SURFACES)), rng.uniform(0.65, 0.95, (n, SURFACES))
    saturation = rng.uniform(0.2, 0.55, (n, SURFACES))
    colour = hsv_to_rgb(np.stack([hue, saturation, value], axis=-1)).astype(float)[:, :, None].repeat(2, 2)
    colour[:, SKY, 0] = (1 + colour[:, SKY, 1]) / 2  # paler at the horizon
    colour[:, WALL_Y] = colour[:, WALL_X]
    return np.zeros((n, SURFACES), np.int64), colour


def daylight(rng: np.random.Generator, azimuth: np.ndarray, varied: bool) -> Light:
    """Draw far lights within 65 degrees of the side from which the camera looks, so that what it sees is lit.

    Args:
        rng: Source of randomness.
        azimuth: Radians ``[n]``: where the camera is, seen from what it looks at.
        varied: Whether direction and strength differ between scenes.
    """
    n = len(azimuth)
    spread = rng.uniform(-1, 1, (4, n)) if varied else np.repeat([[0.6], [0.0], [0.0], [0.0]], n, axis=1)
    turn, raised = unit_circle(azimuth + np.deg2rad(65) * spread[0]), unit_circle(0.9 + 0.25 * spread[1])
    direction = np.stack([turn[0] * raised[0], turn[1] * raised[0], raised[1]], axis=-1)
    return Light(direction, strength=0.72 + 0.1 * spread[2], ambient=0.3 + 0.06 * spread[3])


def depth_order(world: World) -> np.ndarray:
    """Return the bodies' ranks by distance of their centres from the eye: int16 ``[B, K]``, 0 nearest, -1 none."""
    away = world.bodies.centre - world.camera.position[:, None]
    distance = (away[..., 0] ** 2 + away[..., 1] ** 2) + away[..., 2] ** 2
    present = np.arange(distance.shape[1]) < world.count[:, None]
    rank = np.argsort(np.argsort(np.where(present, distance, np.inf), axis=1, kind="stable"), axis=1)
    return np.where(present, rank, -1).astype(np.int16)


def body_factors(world: World, canvas: int) -> dict[str, np.ndarray]:
    """Return what is stored of every body.

    ``class`` (int16, index of `bodies.SHAPES`), ``x`` and ``y`` (pixels, of the projected centre), ``position`` and
    ``size`` (``[B, K, 3]``, full side lengths, units of length), ``yaw`` (radians), ``colour`` (RGB in [0, 1]) and
    ``depth_order``; NaN or -1 beyond the count.
    """
    bodies = world.bodies
    pixel, _ = world.camera.project(bodies.centre, canvas)
    values: dict[str, np.ndarray] = {
        "class": bodies.kind.astype(np.int16),
        "x": pixel[..., 0].astype(np.float32),
        "y": pixel[..., 1].astype(np.float32),
        "position": bodies.centre.astype(np.float32),
        "size": (2 * bodies.half).astype(np.float32),
        "yaw": bodies.yaw.astype(np.float32),
        "colour": bodies.colour.astype(np.float32),
        "depth_order": depth_order(world),
    }
    absent = np.arange(bodies.kind.shape[1]) >= world.count[:, None]
    for array in values.values():
        array[absent] = -1 if array.dtype.kind == "i" else np.nan
    return values


def view_factors(world: World) -> dict[str, np.ndarray]:
    """Return what is stored of camera, light and room.

    ``camera_position`` and ``camera_target`` (``[B, 3]``), ``light_direction`` (``[B, 3]``, towards it),
    ``light_strength``, ``light_ambient``, and ``texture_floor``, ``texture_wall`` (int16, index of `TEXTURES`).
    """
    camera, light, room = world.camera, world.light, world.room
    return {
        "camera_position": camera.position.astype(np.float32),
        "camera_target": camera.target.astype(np.float32),
        "light_direction": light.direction.astype(np.float32),
        "light_strength": light.strength.astype(np.float32),
        "light_ambient": light.ambient.astype(np.float32),
        "texture_floor": room.texture[:, 1].astype(np.int16),
        "texture_wall": room.texture[:, WALL_X].astype(np.int16),
    }
