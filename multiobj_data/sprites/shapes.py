"""dSprites' square, ellipse and heart at any scale, orientation and sub-pixel position.

Geometry of dSprites (Matthey et al. 2017), measured on its published pictures: at scale 1 a square of side
19.2 pixels, an ellipse with semi-axes 12.76 and 7.22, a heart 19.2 wide. A pixel is lit if its centre lies
inside the shape; there is no antialiasing. Orientation turns counter-clockwise on the screen.

Every shape is symmetric about its v axis and lies between two curves over ``|u|``, which is how it is drawn.
"""

from __future__ import annotations

import numpy as np

SHAPES = ("square", "ellipse", "heart")
CODES = {"square": 1, "ellipse": 2, "heart": 3}
"""Shape codes as in dSprites and DeepMind's Multi-dSprites."""

HALF_SIDE = 9.6
SEMI_AXES = 12.76, 7.22  # along u, along v
REACH = HALF_SIDE * np.sqrt(2)  # farthest any shape extends from its centre, at scale 1: the square's corner

_DISCS = np.array(  # shape, disc, (u, v, radius) at scale 1
    [
        [(0, 0, HALF_SIDE), (5.6, 5.6, 4), (-5.6, -5.6, 4)],
        [(0, 0, 7.22), (6, 0, 5.93), (-6, 0, 5.93)],
        [(0, 0.7, 5.39), (4.8, -4.05, 4.7), (-4.8, -4.05, 4.7)],
    ]
)

_ANGLES = 7200  # entries of the table of extents
_HEART_BINS = 8192  # entries of the table of the heart's outline
_CHUNK = 64  # shapes to draw at a time, so that the working set stays in the cache


def heart_outline(t: np.ndarray) -> np.ndarray:
    """Return the heart's outline at scale 1: ``[..., 2]``, u to the right and v downwards, for t in 0..2 pi."""
    u = HALF_SIDE * np.sin(t) ** 3
    v = -0.663 * (13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) - 1.45
    return np.stack([u, v], -1)


def outline(shape: str, points: int = 2000) -> np.ndarray:
    """Return a shape's outline at scale 1 and orientation 0, float64 ``[points, 2]``, v downwards."""
    t = np.linspace(0, 2 * np.pi, points, endpoint=False)
    if shape == "heart":
        return heart_outline(t)
    if shape == "ellipse":
        return np.stack([SEMI_AXES[0] * np.cos(t), SEMI_AXES[1] * np.sin(t)], -1)
    direction = np.stack([np.cos(t), np.sin(t)], -1)
    corners = HALF_SIDE * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    return np.concatenate([corners, HALF_SIDE * direction / np.abs(direction).max(1, keepdims=True)])


def _extents() -> np.ndarray:
    """Tabulate how far each shape reaches left, up, right and down: float32 ``[4, 3 * (_ANGLES + 1)]``.

    An entry is a shape at one of ``_ANGLES + 1`` orientations of a turn, of which the last equals the first.
    """
    a = 2 * np.pi * np.arange(_ANGLES) / _ANGLES
    direction = np.stack([np.cos(a), np.sin(a)])  # [2, _ANGLES]
    reach = np.stack([(outline(shape) @ direction).max(0) for shape in SHAPES]).astype(np.float32)
    # Screen x = u cos r + v sin r and y = -u sin r + v cos r, so "right" looks along the angle r.
    turns = np.arange(_ANGLES + 1)
    return np.stack([reach[:, (turns + k * _ANGLES // 4) % _ANGLES].reshape(-1) for k in (2, 3, 0, 1)])


def _disc_offsets() -> np.ndarray:
    """Tabulate where a shape's discs lie from its centre on the screen: float32 ``[2, D, 3 * (_ANGLES + 1)]``."""
    r = 2 * np.pi * np.arange(_ANGLES + 1) / _ANGLES
    u, v, _ = _DISCS.transpose(2, 1, 0)[..., None]  # [D, 3, 1]
    offset = np.stack([u * np.cos(r) + v * np.sin(r), v * np.cos(r) - u * np.sin(r)])
    return offset.reshape(2, _DISCS.shape[1], -1).astype(np.float32)


def _heart_curves() -> tuple[np.ndarray, np.ndarray]:
    """Tabulate the heart's upper and lower edge over ``|u|``, float32 ``[_HEART_BINS + 1]`` each.

    In the last entry, for all ``|u|`` beyond the heart, no number lies between the edges.
    """
    u = HALF_SIDE * (np.arange(_HEART_BINS) + 0.5) / _HEART_BINS
    t = np.arcsin(np.cbrt(u / HALF_SIDE))
    top, bottom = heart_outline(t)[:, 1], heart_outline(np.pi - t)[:, 1]
    return np.append(top, np.inf).astype(np.float32), np.append(bottom, -np.inf).astype(np.float32)


def cos_sin(angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return cosine and sine as float32, by a table and the rules for sums of angles.

    NumPy's own differ in the last bit between processors, and a pixel's centre may lie just there.
    """
    step = 2 * np.pi / _ANGLES
    turn = np.rint(angle / step)
    d = angle - turn * step  # |d| < 4.4e-4, so that the series below are exact to 1e-11
    c, s = _COS_SIN[:, turn.astype(np.int64) % _ANGLES]
    cos_d = 1 - d * d / 2
    return (c * cos_d - s * d).astype(np.float32), (s * cos_d + c * d).astype(np.float32)


_COS_SIN = np.stack([f(2 * np.pi * np.arange(_ANGLES) / _ANGLES) for f in (np.cos, np.sin)])
_EXTENT = _extents()
_DISC_OFFSETS, _DISC_RADII = _disc_offsets(), _DISCS[..., 2].T.astype(np.float32)  # radii [D, 3]
_HEART_TOP, _HEART_BOTTOM = _heart_curves()
_CORE = np.array([HALF_SIDE, SEMI_AXES[1], np.hypot(*heart_outline(np.linspace(0, 2 * np.pi, 5000)).T).min()])


def core_radius(code: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the radius of the largest disc around the centre that lies inside each shape, in pixels."""
    return _CORE.astype(np.float32).take(code - 1) * scale


def discs(
    code: np.ndarray, scale: np.ndarray, orientation: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return D discs that lie inside each shape and fill most of it.

    Args:
        code: int ``[N]``, see `CODES`.
        scale: float32 ``[N]``.
        orientation: float32 ``[N]``, radians.

    Returns:
        How far their centres lie from the shape's along x and along y, in pixels (to 0.01), and their radii;
        float32 ``[D, N]`` each.
    """
    entry = _entry(code, orientation)
    dx, dy = (np.stack([disc.take(entry) for disc in axis]) for axis in _DISC_OFFSETS)
    radius = np.stack([disc.take(code - 1) for disc in _DISC_RADII])
    return dx * scale, dy * scale, radius * scale


def extents(code: np.ndarray, scale: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """Return how far each shape reaches from its centre: left, up, right, down, in pixels.

    Args:
        code: int ``[N]``, see `CODES`.
        scale: float ``[N]``.
        orientation: float ``[N]``, radians.

    Returns:
        float32 ``[N, 4]``.
    """
    entry = _entry(code, orientation)
    return np.stack([side.take(entry) * scale for side in _EXTENT]).T


def _entry(code: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """Return where shapes at the nearest of ``_ANGLES + 1`` orientations stand in a table, int64 ``[N]``."""
    turns = np.float32(1 / (2 * np.pi)) * orientation
    turns -= np.floor(turns)
    step = np.rint(turns * np.float32(_ANGLES)).astype(np.int32)
    return (code.astype(np.int32) - 1) * (_ANGLES + 1) + step


def patch_side(scale: float) -> int:
    """Return the side of a patch that holds every shape up to this scale."""
    return int(2 * REACH * scale) + 1


def rasterise(
    code: np.ndarray, scale: np.ndarray, orientation: np.ndarray, centre: np.ndarray, size: int
) -> np.ndarray:
    """Draw one shape a patch.

    Args:
        code: int ``[N]``, see `CODES`.
        scale: float32 ``[N]``; 1 is the size of dSprites' largest.
        orientation: float32 ``[N]``, radians.
        centre: float32 ``[N, 2]``, x and y in pixels from the patch's top left corner.
        size: Side of the patches.

    Returns:
        uint8 ``[N, size, size]``, 255 inside.
    """
    patches = np.zeros((len(code), size, size), np.uint8)
    by_size = np.argsort(scale, kind="stable")
    for k, inside in enumerate((_in_square, _in_ellipse, _in_heart), start=1):
        members = by_size[code[by_size] == k]
        for start in range(0, len(members), _CHUNK):
            some = members[
                start : start + _CHUNK
            ]  # of about one size, so that one small window holds them all
            low, high = _window(centre[some], scale[some], size)
            u, v = _canonical(scale[some], orientation[some], centre[some] - low, high - low)
            patches[some, low:high, low:high] = inside(u, v).view(np.uint8) * np.uint8(255)
    return patches


def _window(centre: np.ndarray, scale: np.ndarray, size: int) -> tuple[int, int]:
    """Return the first and the last pixel (plus one), of rows and columns alike, that shapes can reach."""
    reach = REACH * float(scale.max())
    low, high = int(centre.min() - reach), int(np.ceil(centre.max() + reach))
    return max(low, 0), min(high, size)


def _canonical(
    scale: np.ndarray, orientation: np.ndarray, centre: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixel centres in each shape's own frame, at scale 1: u and v, float32 ``[n, size, size]``."""
    at = np.arange(size, dtype=np.float32) + np.float32(0.5)
    dx, dy = ((at - centre[:, axis, None]) / scale[:, None] for axis in (0, 1))  # [n, size]
    cos, sin = (values[:, None] for values in cos_sin(orientation.astype(np.float64)))
    u = (cos * dx)[:, None, :] - (sin * dy)[:, :, None]
    v = (sin * dx)[:, None, :] + (cos * dy)[:, :, None]
    return u, v


def _in_square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u), np.abs(v)) < np.float32(HALF_SIDE)


def _in_ellipse(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    a, b = (np.float32(1 / axis) for axis in SEMI_AXES)
    return np.square(u * a) + np.square(v * b) < 1


def _in_heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    place = (np.abs(u) * np.float32(_HEART_BINS / HALF_SIDE)).astype(np.int32)
    np.minimum(place, _HEART_BINS, out=place)  # the entry for all beyond
    return (v > _HEART_TOP.take(place)) & (v < _HEART_BOTTOM.take(place))
