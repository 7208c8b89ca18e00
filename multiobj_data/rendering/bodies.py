"""Where a ray meets a body, and how a body's surface faces the light.

All bodies are convex and described in a frame of their own: centred at the origin, z up, with half sizes
``(hx, hy, hz)``. A ray is ``origin + t * direction``. Components may be numbers or arrays that broadcast, so
that the same functions serve rays from one eye (origin constant) and rays to one light (direction constant).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

SHAPES = ("box", "cylinder", "sphere", "cone")
"""Names by class number. Cylinders and cones stand upright."""
BOX, CYLINDER, SPHERE, CONE = range(4)

Value: TypeAlias = Any
"""A number, or a float32 array."""
Vector: TypeAlias = tuple[Value, Value, Value]
Half: TypeAlias = tuple[float, float, float]

_TINY = 1e-12  # stands for 0 in a divisor: far beyond any scene, far from float32's limits when squared


def interval(kind: int, origin: Vector, direction: Vector, half: Half) -> tuple[np.ndarray, np.ndarray]:
    """Return for which ``near < t < far`` a ray is inside the body; it misses where ``near >= far``.

    Args:
        kind: Class number, an index of `SHAPES`.
        origin: Where rays start, in the body's frame.
        direction: Where they go; any length.
        half: The body's half sizes.
    """
    near, far = _slab(origin[2], direction[2], half[2])
    if kind == BOX:
        sides = [_slab(origin[axis], direction[axis], half[axis]) for axis in (0, 1)]
    elif kind == CYLINDER:
        sides = [_round(origin[:2], direction[:2], half[0])]
    elif kind == SPHERE:
        return _round(origin, direction, half[0])
    else:
        sides = [_cone(origin, direction, half)]
    for side_near, side_far in sides:
        near, far = np.maximum(near, side_near), np.minimum(far, side_far)
    return near, far


def _slab(origin: Value, direction: Value, half: float) -> tuple[np.ndarray, np.ndarray]:
    """Between two parallel planes: ``|origin + t * direction| < half``."""
    inverse = 1 / _not_zero(direction)
    middle = -origin * inverse
    reach = abs(inverse) * half
    return middle - reach, middle + reach


def _round(
    origin: tuple[Value, ...], direction: tuple[Value, ...], radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Within a distance: ``|origin + t * direction| < radius``; in two dimensions an upright cylinder."""
    a = _not_zero(_dot(direction, direction))
    b = _dot(origin, direction)
    root = np.sqrt(np.maximum(b * b - a * (_dot(origin, origin) - radius * radius), 0))
    return (-b - root) / a, (-b + root) / a  # equal where the ray misses


def _cone(origin: Vector, direction: Vector, half: Half) -> tuple[np.ndarray, np.ndarray]:
    """Inside the cone whose apex is at ``z = hz`` and whose radius at ``z = -hz`` is ``hx``, below its apex."""
    slope = half[0] / (2 * half[2])
    depth, down = slope * (half[2] - origin[2]), -slope * direction[2]  # radius at the ray: depth + t * down
    a = _not_zero(_dot(direction[:2], direction[:2]) - down * down)
    b = _dot(origin[:2], direction[:2]) - depth * down
    discriminant = b * b - a * (_dot(origin[:2], origin[:2]) - depth * depth)
    root = np.sqrt(np.maximum(discriminant, 0))
    one, other = (-b - root) / a, (-b + root) / a
    low, high = np.minimum(one, other), np.maximum(one, other)
    # a > 0: between the roots. a < 0: the ray is steeper than the cone, and inside it from a root on, for ever
    steep, falling = np.less(a, 0), np.greater(down, 0)
    near = np.where(steep, np.where(falling, high, -1 / _TINY), low)
    far = np.where(steep, np.where(falling, 1 / _TINY, low), high)
    return near.astype(np.float32), far.astype(np.float32)


def _dot(a: tuple[Value, ...], b: tuple[Value, ...]) -> Value:
    total = a[0] * b[0]
    for x, y in zip(a[1:], b[1:], strict=True):
        total = total + x * y
    return total


def _not_zero(value: Value) -> Value:
    if isinstance(value, np.ndarray):
        return value + (value == 0) * np.float32(_TINY)
    return value or _TINY


def cosine(kind: int, point: Vector, half: Half, light: Vector) -> np.ndarray:
    """Return the cosine between the surface's outward normal and the direction to the light.

    Args:
        kind: Class number.
        point: Points of the surface, arrays in the body's frame.
        half: The body's half sizes.
        light: Unit vector towards the light, in the body's frame.
    """
    x, y, z = point
    lx, ly, lz = light
    if kind == BOX:
        return _box_cosine(point, half, light)
    if kind == SPHERE:
        return (x * lx + y * ly + z * lz) / half[0]
    side = x * lx + y * ly
    if kind == CYLINDER:
        radius = half[0]
        cap = np.abs(z) / half[2] > np.sqrt(x * x + y * y) / radius  # nearer to a cap than to the side
        return _choose(cap, np.sign(z) * lz, side / radius)
    slope = half[0] / (2 * half[2])
    length = float(np.sqrt(1 + slope * slope))
    around = np.sqrt(x * x + y * y) + _TINY
    return _choose(z < -0.999 * half[2], -lz, (side / around + slope * lz) / length)


def _box_cosine(point: Vector, half: Half, light: Vector) -> np.ndarray:
    """The face of a box is the axis along which the point is outermost, relative to the half size."""
    best = result = np.zeros(1, np.float32)
    for value, reach, toward in zip(point, half, light, strict=True):
        outward = np.abs(value) / reach
        result = _choose(outward > best, np.sign(value) * toward, result)
        best = np.maximum(best, outward)
    return result


def _choose(condition: np.ndarray, yes: Value, no: Value) -> np.ndarray:
    """`numpy.where` by arithmetic, exact for finite numbers, and faster where the condition is ragged."""
    return condition * yes + ~condition * no


def outer_radius(kind: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Return the radius of the upright cylinder around a body, whatever its yaw; shape of ``kind``.

    Args:
        kind: Class numbers, any shape.
        half: Half sizes, ``[..., 3]``.
    """
    corner = np.sqrt(half[..., 0] ** 2 + half[..., 1] ** 2)
    return np.where(kind == BOX, corner, half[..., 0])
