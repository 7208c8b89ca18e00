"""Random towers that stand, or fail at one chosen contact; built from the top down, so that few are rejected.

Let c be the centre of mass of what lies above a contact. The block below is put so that c lies at a random place of
its upper face. The common centre of mass of both then lies between c and that block's centre, so it is inside the
block's own underside too: every contact but the failing one holds by construction, and only failing towers have to
be drawn again where they fail at more than one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multiobj_data.blocks.stability import Above, contact_margins, inside, masses
from multiobj_data.errors import InfeasibleError
from multiobj_data.rendering.bodies import BOX, CYLINDER, SPHERE
from multiobj_data.rendering.world import unit_circle

NONE, CENTRE_OF_MASS, CURVED_SUPPORT = range(3)
"""What is wrong with a tower: nothing; a part lies too far out; a part lies on a sphere."""

TALLEST = 1.0
"""Height of the highest block, in units of length."""

_TOUCH = 0.08  # a part that lies too far out still lies on its support by at least this much
_ROUNDS = 100_000  # of candidates, before a tower counts as impossible


@dataclass(frozen=True)
class Stacks:
    """M towers of up to n blocks, bottom to top.

    Attributes:
        kind: int64 ``[M, n]``, classes of `rendering.bodies`.
        half: float64 ``[M, n, 3]``, half sizes.
        yaw: float64 ``[M, n]``, radians.
        centre: float64 ``[M, n, 3]``; floor at z = 0.
        margin: float64 ``[M, n]``, of the contact beneath each block; see `stability.contact_margins`.
        level: int64 ``[M]``, the block on which the part that falls lies; -1 none.
        attempts: int64 ``[M]``, candidates drawn.
    """

    kind: np.ndarray
    half: np.ndarray
    yaw: np.ndarray
    centre: np.ndarray
    margin: np.ndarray
    level: np.ndarray
    attempts: np.ndarray

    @classmethod
    def empty(cls, towers: int, blocks: int) -> Stacks:
        """Return towers whose blocks are all still missing: sizes and places are 1 and 0."""
        shape = (towers, blocks)
        return cls(
            kind=np.zeros(shape, np.int64),
            half=np.ones((*shape, 3)),
            yaw=np.zeros(shape),
            centre=np.zeros((*shape, 3)),
            margin=np.full(shape, np.nan),
            level=np.full(towers, -1),
            attempts=np.ones(towers, np.int64),
        )


def stack(
    rng: np.random.Generator, count: np.ndarray, violation: np.ndarray, shapes: tuple[int, ...], margin: float
) -> Stacks:
    """Draw a tower for each count and violation.

    Args:
        rng: Source of randomness.
        count: int64 ``[M]``, blocks; 2 or more where there is a violation.
        violation: int64 ``[M]``: `NONE`, `CENTRE_OF_MASS` or `CURVED_SUPPORT`.
        shapes: Classes to choose from.
        margin: Least distance of a centre of mass from the edge of its contact, in units of length.

    Raises:
        InfeasibleError: A tower cannot be found.
    """
    result = Stacks.empty(len(count), int(count.max(initial=0)))
    for blocks, what in sorted({(int(n), int(v)) for n, v in zip(count, violation, strict=True) if n}):
        pending = np.flatnonzero((count == blocks) & (violation == what))
        if what != NONE:
            result.level[pending] = rng.integers(blocks - 1, size=len(pending))
        for _ in range(_ROUNDS):
            level = result.level[pending]
            drawn = _propose(rng, blocks, what, level, shapes, margin)
            good = _acceptable(*drawn, what, level, margin)
            done = pending[good]
            for field, values in zip(
                (result.kind, result.half, result.yaw, result.centre), drawn, strict=True
            ):
                field[done, :blocks] = values[good]
            result.margin[done, :blocks] = contact_margins(*(values[good] for values in _flat(*drawn)))
            pending = pending[~good]
            result.attempts[pending] += 1
            if not len(pending):
                break
        else:
            raise InfeasibleError(
                f"no tower of {blocks} blocks that fails at one contact alone was found in {_ROUNDS:,} candidates; "
                "use fewer blocks or a smaller margin."
            )
    return result


Drawn = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # kind, half, yaw, centre


def _propose(
    rng: np.random.Generator, n: int, what: int, level: np.ndarray, shapes: tuple[int, ...], margin: float
) -> Drawn:
    """Draw a candidate for each tower; only the failing contact and its neighbours may be wrong."""
    m = len(level)
    kind = _kinds(rng, n, what, level, shapes)
    half = _halves(rng, kind)
    yaw = np.where(kind == BOX, rng.uniform(0, np.pi / 2, (m, n)), 0)  # others look alike from all sides
    centre = np.zeros((m, n, 3))
    above = Above.nothing(m)
    for k in reversed(range(n)):
        if k < n - 1:
            place = _on_face(rng, kind[:, k], half[:, k], yaw[:, k], -margin)
            if what == CENTRE_OF_MASS:
                outside = _on_face(rng, kind[:, k], half[:, k], yaw[:, k], 0.3)
                place = np.where((level == k)[:, None], outside, place)
            centre[:, k, :2] = above.centre - place
        above = above.plus(masses(kind[:, k], half[:, k]), centre[:, k, :2])
    height = 2 * half[..., 2]
    centre[..., 2] = np.cumsum(height, axis=1) - half[..., 2]
    centre[..., :2] -= (centre[..., :2].max(1) + centre[..., :2].min(1))[:, None] / 2
    return kind, half, yaw, centre


def _kinds(
    rng: np.random.Generator, n: int, what: int, level: np.ndarray, shapes: tuple[int, ...]
) -> np.ndarray:
    """Return classes ``[M, n]``: spheres at the top alone, or where the part that falls lies on one."""
    flat = np.array([shape for shape in shapes if shape != SPHERE])
    kind = flat[rng.integers(len(flat), size=(len(level), n))]
    top = np.array(shapes)[rng.integers(len(shapes), size=len(level))]
    kind[:, -1] = np.where((what != NONE) & (level == n - 2), kind[:, -1], top)  # what falls is no sphere
    if what == CURVED_SUPPORT:
        kind[np.arange(len(level)), level] = SPHERE
    return kind


def _halves(rng: np.random.Generator, kind: np.ndarray) -> np.ndarray:
    """Return half sizes ``[M, n, 3]``."""
    x, y = rng.uniform(0.38, 0.7, (2, *kind.shape))
    z = rng.uniform(0.3, TALLEST / 2, kind.shape)
    radius = rng.uniform(0.36, TALLEST / 2, kind.shape)
    box = np.stack([x, y, z], axis=-1)
    cylinder = np.stack([x, x, z], axis=-1) * (0.93, 0.93, 1)  # as wide as boxes look on average
    sphere = np.repeat(radius[..., None], 3, axis=-1)
    return np.select([(kind == BOX)[..., None], (kind == CYLINDER)[..., None]], [box, cylinder], sphere)


def _on_face(
    rng: np.random.Generator, kind: np.ndarray, half: np.ndarray, yaw: np.ndarray, wider: float
) -> np.ndarray:
    """Return places uniform on blocks' upper faces, made wider on all sides: ``[M, 2]``, from the centre.

    On a sphere they are uniform within half its radius around the top.
    """
    u, v = rng.uniform(-1, 1, (2, len(kind)))
    cos, sin = unit_circle(yaw)
    x, y = u * (half[:, 0] + wider), v * (half[:, 1] + wider)
    turned = np.stack([x * cos - y * sin, x * sin + y * cos], axis=-1)
    cos, sin = unit_circle(np.pi * v)
    reach = np.where(kind == SPHERE, half[:, 0] / 2, half[:, 0] + wider)
    radius = reach * np.sqrt(np.abs(u))
    disc = np.stack([radius * cos, radius * sin], axis=-1)
    return np.where((kind == BOX)[:, None], turned, disc)


def _flat(kind: np.ndarray, half: np.ndarray, yaw: np.ndarray, centre: np.ndarray) -> Drawn:
    return kind, half, yaw, centre[..., :2]


def _acceptable(
    kind: np.ndarray,
    half: np.ndarray,
    yaw: np.ndarray,
    centre: np.ndarray,
    what: int,
    level: np.ndarray,
    margin: float,
) -> np.ndarray:
    """Return which towers hold everywhere but at the failing contact, and there fail clearly: bool ``[M]``."""
    flat = centre[..., :2]
    margins = contact_margins(kind, half, yaw, flat)
    if what == NONE:
        return margins.min(1) >= margin
    tower, fails = np.arange(len(level)), level + 1
    failing = margins[tower, fails]
    margins[tower, fails] = np.inf
    good = margins.min(1) >= margin
    if what == CENTRE_OF_MASS:
        return good & (failing <= -margin) & _touch(kind, half, yaw, flat, level)
    on_sphere = _inside(kind, half, yaw, flat, fails, flat[tower, level])
    below = np.maximum(level - 1, 0)
    rests = _inside(kind, half, yaw, flat, below, flat[tower, level])  # the sphere, on a face
    on_face = np.logical_or(level == 0, rests >= margin)
    return good & (on_sphere >= _TOUCH) & on_face


def _inside(
    kind: np.ndarray,
    half: np.ndarray,
    yaw: np.ndarray,
    flat: np.ndarray,
    block: np.ndarray,
    point: np.ndarray,
) -> np.ndarray:
    """Return how far inside the face of block ``block`` of each tower a point is."""
    at = np.arange(len(block)), block
    return inside(kind[at], half[at], yaw[at], point - flat[at])


def _touch(
    kind: np.ndarray, half: np.ndarray, yaw: np.ndarray, flat: np.ndarray, level: np.ndarray
) -> np.ndarray:
    """Return whether the part that falls still overlaps its support by `_TOUCH`, in depth, in both footprints.

    The point tried is that of the support's inner face (`_TOUCH` from its edges) which is nearest to the middle
    of the block above.
    """
    at, upper = (np.arange(len(level)), level), (np.arange(len(level)), level + 1)
    x, y = (flat[upper] - flat[at]).T
    cos, sin = unit_circle(yaw[at])
    reach = half[at][:, :2] - _TOUCH
    along = np.clip(x * cos + y * sin, -reach[:, 0], reach[:, 0])
    across = np.clip(y * cos - x * sin, -reach[:, 1], reach[:, 1])
    shrink = np.minimum(1, reach[:, 0] / np.sqrt(x * x + y * y))
    box = np.stack([along * cos - across * sin, along * sin + across * cos], axis=-1)
    disc = np.stack([x * shrink, y * shrink], axis=-1)
    nearest = np.where((kind[at] == BOX)[:, None], box, disc) + flat[at]
    return _inside(kind, half, yaw, flat, level + 1, nearest) >= _TOUCH
