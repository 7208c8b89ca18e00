"""When a tower of blocks stands: statics of rigid blocks of one density, each lying flat on the one below.

A contact holds if the centre of mass of everything above it projects into the area where the two blocks touch.
Since each block carries just one other, this is necessary and sufficient for equilibrium. That area is the
intersection of two convex footprints, so a point is inside it if it is inside both, and its distance to the edge
is the smaller one of the two. On a sphere the area is a point: nothing that lies on a sphere holds. A sphere on a
flat face rests in neutral equilibrium where its lowest point is on the face; its own underside is not tested.

Blocks are boxes (turned by a yaw), upright cylinders and spheres, classes of `rendering.bodies`. Arrays are
float64 ``[M, n]`` or ``[M, n, 2]``: M towers, n blocks from bottom to top, horizontal coordinates.
"""

from __future__ import annotations

import numpy as np

from multiobj_data.rendering.bodies import BOX, CYLINDER, SPHERE
from multiobj_data.rendering.world import unit_circle

_FILL = {BOX: 1.0, CYLINDER: np.pi / 4, SPHERE: np.pi / 6}  # volume over that of the box around


def masses(kind: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Return the blocks' masses at density 1.

    Args:
        kind: Class numbers ``[..., n]``.
        half: Half sizes ``[..., n, 3]``.

    Returns:
        float64 ``[..., n]``.
    """
    fill = np.select([kind == shape for shape in _FILL], list(_FILL.values()))
    return 8 * half[..., 0] * half[..., 1] * half[..., 2] * fill


def inside(kind: np.ndarray, half: np.ndarray, yaw: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Return how far inside the face of a block a point is; negative outside.

    Inside, this is the distance to the face's edge. A sphere's face is the point at its middle.

    Args:
        kind: Class numbers, any shape.
        half: Half sizes ``[..., 3]``.
        yaw: Radians.
        point: ``[..., 2]``, relative to the block's centre.
    """
    cos, sin = unit_circle(yaw)
    x, y = point[..., 0], point[..., 1]
    along, across = np.abs(x * cos + y * sin), np.abs(y * cos - x * sin)
    from_sides = np.minimum(half[..., 0] - along, half[..., 1] - across)
    radius = np.where(kind == SPHERE, 0, half[..., 0])
    return np.where(kind == BOX, from_sides, radius - np.sqrt(x * x + y * y))


def contact_margins(kind: np.ndarray, half: np.ndarray, yaw: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Return the margin of the contact beneath each block: how far inside it the weight above acts.

    Args:
        kind: Class numbers ``[M, n]``, bottom to top.
        half: Half sizes ``[M, n, 3]``.
        yaw: ``[M, n]``, radians.
        centre: ``[M, n, 2]``.

    Returns:
        float64 ``[M, n]`` in units of length; the first is the contact with the floor, infinite for a sphere.
    """
    margins = np.empty(kind.shape)
    above = Above.nothing(len(kind))
    for k in reversed(range(kind.shape[1])):
        above = above.plus(masses(kind[:, k], half[:, k]), centre[:, k])
        underside = inside(kind[:, k], half[:, k], yaw[:, k], above.centre - centre[:, k])
        margins[:, k] = np.where(kind[:, k] == SPHERE, np.inf, underside)
        if k:
            face = inside(kind[:, k - 1], half[:, k - 1], yaw[:, k - 1], above.centre - centre[:, k - 1])
            margins[:, k] = np.minimum(margins[:, k], face)
    return margins


class Above:
    """What lies above a contact: its mass ``[M]`` and the horizontal place of its centre of mass ``[M, 2]``."""

    def __init__(self, mass: np.ndarray, centre: np.ndarray) -> None:
        self.mass, self.centre = mass, centre

    @classmethod
    def nothing(cls, towers: int) -> Above:
        """Return M times nothing."""
        return cls(np.zeros(towers), np.zeros((towers, 2)))

    def plus(self, mass: np.ndarray, centre: np.ndarray) -> Above:
        """Return the same with a block more in each tower."""
        total = self.mass + mass
        moved = (centre - self.centre) * (mass / total)[:, None]
        return Above(total, self.centre + moved)
