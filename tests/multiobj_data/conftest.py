import matplotlib.path
import numpy as np
import pytest

T = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
OUTLINES = {  # of dSprites at scale 1 and orientation 0, v downwards; measured on its published pictures
    1: np.array([[9.6, 9.6], [-9.6, 9.6], [-9.6, -9.6], [9.6, -9.6]]),
    2: np.stack([12.76 * np.cos(T), 7.22 * np.sin(T)], 1),
    3: np.stack(
        [
            9.6 * np.sin(T) ** 3,
            -0.663 * (13 * np.cos(T) - 5 * np.cos(2 * T) - 2 * np.cos(3 * T) - np.cos(4 * T)) - 1.45,
        ],
        1,
    ),
}


class Geometry:
    """dSprites' shapes by code, from their outlines alone: 1 square, 2 ellipse, 3 heart."""

    outlines = OUTLINES

    def inside(self, code, scale, orientation, x, y, rows, columns):
        """Which pixel centres lie in a shape, and which of them so near its outline that either is right."""
        column, row = np.meshgrid(np.asarray(columns) + 0.5, np.asarray(rows) + 0.5)
        dx, dy = column - x, row - y
        near = np.hypot(dx, dy) < 14 * scale
        cos, sin = np.cos(orientation), np.sin(orientation)
        points = np.stack([cos * dx - sin * dy, sin * dx + cos * dy], -1)[near] / scale
        path = matplotlib.path.Path(OUTLINES[int(code)])
        lit, unclear = np.zeros(near.shape, bool), np.zeros(near.shape, bool)
        lit[near] = path.contains_points(points)
        shifts = 1e-3 / scale * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
        unclear[near] = np.any([path.contains_points(points + shift) != lit[near] for shift in shifts], 0)
        return lit, unclear

    def turned(self, code, scale, orientation):
        """A shape's outline on the screen, around its centre, counter-clockwise by the orientation: [n, 2]."""
        u, v = OUTLINES[int(code)].T
        cos, sin = np.cos(orientation), np.sin(orientation)
        return scale * np.stack([cos * u + sin * v, -sin * u + cos * v], 1)

    def extents(self, code, scale, orientation):
        """How far a shape reaches: left, up, right, down."""
        points = self.turned(code, scale, orientation)
        return np.concatenate([-points.min(0), points.max(0)])

    def area(self, code):
        """The area that the outline at scale 1 encloses."""
        x, y = OUTLINES[int(code)].T
        return abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2


@pytest.fixture(scope="session")
def geometry():
    return Geometry()
