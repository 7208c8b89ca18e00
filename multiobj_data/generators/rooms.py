"""Rooms: solid bodies on the floor of a room with two walls, after the Objects Room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from multiobj_data.composition.counts import Counts
from multiobj_data.errors import InfeasibleError, UsageError
from multiobj_data.rendering.bodies import BOX, CONE, CYLINDER, SHAPES, outer_radius
from multiobj_data.rendering.raycasting import render
from multiobj_data.rendering.scenery import (
    body_factors,
    daylight,
    parse_names,
    plain_colours,
    strong_colours,
    textured_colours,
    view_factors,
)
from multiobj_data.rendering.textures import TEXTURES
from multiobj_data.rendering.world import SURFACES, Bodies, Camera, Room, World, unit_circle
from multiobj_data.scenes import Scenes

FOCAL = 1.0
"""Focal length in picture widths: an angle of view of 53 degrees."""

_MOST = 7  # objects; more hardly fit into what the camera sees, or where the farthest is near, two a unit beyond 2.5
_GAP = 0.08  # units of length between the circles around two objects
_NEAREST = 2.0  # from below the camera
_ROUNDS = 200_000  # of candidates, before a scene counts as impossible


@dataclass(frozen=True)
class Rooms:
    """Boxes, cylinders, spheres and cones in a room, in the spirit of the Objects Room (Burgess et al. 2019).

    Objects stand on the floor, do not touch, and are whole in the picture, though one may hide another, even
    entirely. They are drawn uniformly over the part of the floor where that is so; a scene in which two are too near
    each other is drawn anew as a whole (``attempts``). The label map has four labels of background, always:
    0 sky, 1 floor, 2 and 3 walls (one may be out of view); objects follow.

    The Objects Room's test conditions: ``counts="0"`` (empty room), ``counts="6"`` (six objects), and
    ``counts="4-6"`` with ``colours="identical"``.

    Object factors: see `scenery.body_factors`; and ``visible_fraction``. Scene factors: ``attempts`` and those of
    camera, light and textures, see `scenery.view_factors`.

    Args:
        counts: Objects a scene: ``"1-3"`` (equal shares, exact), ``"6"``, weights ``"1:3,2:1"``; at most 7.
        canvas: Side of the scene in pixels.
        shapes: Comma-separated: box, cylinder, sphere, cone.
        colours: random, or identical (all objects of a scene have one colour).
        textures: Comma-separated, what floor and walls are chosen from: plain, checker, stripes, tiles, noise, bricks.
        light: varied (direction and strength differ) or fixed.
        camera: varied (where it stands and looks differ) or fixed.
        farthest: How far from below the camera objects may stand, in units of length: 4 to 9, beyond the room's
            corner. One of middle size fills a third of the picture's width at 3, an eighth at 7.
        amodal: Whether to keep each object's own pixels beside the label map.
    """

    id: ClassVar[str] = "rooms-v1"

    counts: str = "1-3"  # Objects Room, training set: up to three
    canvas: int = 64  # Objects Room
    shapes: str = ",".join(SHAPES)
    colours: Literal["random", "identical"] = "random"
    textures: str = "plain"  # Objects Room
    light: Literal["varied", "fixed"] = "varied"
    camera: Literal["varied", "fixed"] = "varied"
    farthest: float = 9.0
    amodal: bool = True

    def __post_init__(self) -> None:
        parse_names("shapes", self.shapes, SHAPES)
        parse_names("textures", self.textures, TEXTURES)
        if not 32 <= self.canvas <= 512:
            raise UsageError(f"canvas: expected 32 to 512 pixels, got {self.canvas}.")
        if not 4 <= self.farthest <= 9:
            raise UsageError(f"farthest: expected 4 to 9 units of length, got {self.farthest:g}.")
        largest, most = Counts(self.counts).largest, min(_MOST, int(2 * (self.farthest - 2.5)))
        if largest > most:
            within = "" if most == _MOST else f" with farthest={self.farthest:g}"
            raise UsageError(f"counts: at most {most} objects fit into a room{within}, got {largest}.")

    def acceptance(self, rng: np.random.Generator) -> dict[int, float]:
        """Estimate per count which share of candidate scenes is accepted."""
        shares = {}
        for number in Counts(self.counts).weights:
            _, attempts = self._furnish(rng, *self._view(rng, 64), np.full(64, number))
            shares[number] = 64 / float(attempts.sum())
        return shares

    @property
    def vocabulary(self) -> Mapping[str, Mapping[str, int]]:
        """What the values of factors are called: the classes."""
        return {"class": {name: number for number, name in enumerate(SHAPES)}}

    def scenes(self, rng: np.random.Generator, n: int, *, split: str = "train", first: int = 0) -> Scenes:
        """Draw ``n`` rooms; every split has the same law."""
        count = Counts(self.counts).draw(rng, n, first)
        camera, azimuth, room = self._view(rng, n)
        bodies, attempts = self._furnish(rng, camera, azimuth, room, count)
        light = daylight(rng, azimuth + np.pi, self.light == "varied")
        world = World(count, bodies, room, camera, light)
        drawn = render(world, self.canvas, amodal=self.amodal)
        return Scenes(
            image=drawn.image,
            count=count,
            segments=drawn.segments,
            boxes=drawn.boxes,
            background_segments=SURFACES,
            factors=body_factors(world, self.canvas) | {"visible_fraction": drawn.visible},
            scene_factors={"attempts": attempts} | view_factors(world),
            amodal=drawn.amodal,
        )

    def _view(self, rng: np.random.Generator, n: int) -> tuple[Camera, np.ndarray, Room]:
        """Draw cameras that look into the corner of a room; and the azimuths in which they look."""
        play = rng.uniform(-1, 1, (5, n)) if self.camera == "varied" else np.zeros((5, n))
        azimuth = np.deg2rad(45 + 25 * play[0])
        height, fall = 2.5 + 0.5 * play[1], 0.33 + 0.06 * play[2]
        ahead = np.stack(unit_circle(azimuth), axis=-1)  # [n, 2]
        position = np.concatenate([np.zeros((n, 2)), height[:, None]], axis=1)
        target = np.concatenate([ahead, (height - fall)[:, None]], axis=1)
        if self.textures == "plain":
            texture, colour = plain_colours(rng, n)
        else:
            texture, colour = textured_colours(rng, n, parse_names("textures", self.textures, TEXTURES))
        wall_height = height + rng.uniform(0.2, 0.9, n)  # above the eye: nothing beyond the walls is seen
        room = Room(7.2 + 0.8 * play[3], 7.2 + 0.8 * play[4], wall_height, texture, colour)
        return Camera(position, target, FOCAL), azimuth, room

    def _furnish(
        self, rng: np.random.Generator, camera: Camera, azimuth: np.ndarray, room: Room, count: np.ndarray
    ) -> tuple[Bodies, np.ndarray]:
        """Draw objects until all fit; return them with the numbers of candidates, int64 ``[n]``."""
        n, k = len(count), int(count.max(initial=0))
        hue = rng.random((n, 1)).repeat(k, 1) if self.colours == "identical" else rng.random((n, k))
        colour = strong_colours(rng, hue)
        if self.colours == "identical" and k:
            colour[:] = colour[:, :1]
        bodies = Bodies(
            np.zeros((n, k), int), np.zeros((n, k, 3)), np.ones((n, k, 3)), np.zeros((n, k)), colour
        )
        attempts, pending = np.ones(n, np.int64), np.arange(n)
        shapes = np.array([SHAPES.index(name) for name in parse_names("shapes", self.shapes, SHAPES)])
        for _ in range(_ROUNDS):
            scene, place = np.nonzero(np.arange(k) < count[pending, None])
            _put(rng, shapes, bodies, pending[scene], place, _Views(camera, azimuth, room, self.farthest))
            pending = pending[~_apart(bodies, count, pending)]
            attempts[pending] += 1
            if not len(pending):
                return bodies, attempts
        raise InfeasibleError(
            f"no room for {int(count[pending].max())} objects was found in {_ROUNDS:,} candidates; use fewer."
        )


@dataclass(frozen=True)
class _Views:
    """Where cameras are and what they see, one a scene; and how far from them bodies may stand."""

    camera: Camera
    azimuth: np.ndarray
    room: Room
    farthest: float


def _put(
    rng: np.random.Generator,
    shapes: np.ndarray,
    bodies: Bodies,
    scene: np.ndarray,
    place: np.ndarray,
    views: _Views,
) -> None:
    """Draw bodies ``place`` of scenes ``scene`` anew, each until it is inside the room and whole in the picture."""
    while len(scene):
        drawn = _propose(rng, shapes, views.azimuth[scene], views.farthest)
        good = _visible(drawn, scene, views)
        at = scene[good], place[good]
        for field in ("kind", "centre", "half", "yaw"):
            getattr(bodies, field)[at] = getattr(drawn, field)[good, 0]
        scene, place = scene[~good], place[~good]


def _propose(rng: np.random.Generator, shapes: np.ndarray, azimuth: np.ndarray, farthest: float) -> Bodies:
    """Draw a body for each of M views, on the floor somewhere before the camera: arrays ``[M, 1]``."""
    m = len(azimuth)
    kind = shapes[rng.integers(len(shapes), size=(m, 1))]
    half = _halves(rng, kind)
    bearing = azimuth[:, None] + rng.uniform(-0.46, 0.46, (m, 1))  # the angle of view is +-0.464
    away = np.sqrt(rng.uniform(_NEAREST**2, farthest**2, (m, 1)))  # uniform in area
    cos, sin = unit_circle(bearing)
    centre = np.stack([away * cos, away * sin, half[..., 2]], axis=-1)
    yaw = np.where(kind == BOX, rng.uniform(0, np.pi / 2, (m, 1)), 0)  # others look alike from all sides
    return Bodies(kind, centre, half, yaw, np.zeros((m, 1, 3)))


def _halves(rng: np.random.Generator, kind: np.ndarray) -> np.ndarray:
    """Return half sizes, ``[..., 3]``."""
    x, y, radius = rng.uniform(0.33, 0.58, (3, *kind.shape))
    z = rng.uniform(0.33, 0.65, kind.shape)
    box = np.stack([x, y, z], axis=-1)
    upright = np.stack([radius, radius, z], axis=-1)
    cone = upright * (1.1, 1.1, 1.15)  # a cone looks smaller than what it fits in
    sphere = np.repeat(radius[..., None], 3, axis=-1)
    cases = [(kind == shape)[..., None] for shape in (BOX, CYLINDER, CONE)]
    return np.select(cases, [box, upright, cone], sphere)


def _visible(bodies: Bodies, scene: np.ndarray, views: _Views) -> np.ndarray:
    """Return which of M bodies, ``[M, 1]``, are inside the room and whole in the picture."""
    radius = outer_radius(bodies.kind, bodies.half)[:, 0]
    inside = bodies.centre[:, 0, 0] + radius < views.room.wall_x[scene]
    inside &= bodies.centre[:, 0, 1] + radius < views.room.wall_y[scene]
    camera = Camera(views.camera.position[scene], views.camera.target[scene], views.camera.focal)
    place, depth = camera.project(bodies.corners(), 1)  # in a picture of one pixel: 0..1
    return inside & ((place > 0) & (place < 1)).all((1, 2, 3)) & (depth > 0).all((1, 2))


def _apart(bodies: Bodies, count: np.ndarray, scene: np.ndarray) -> np.ndarray:
    """Return in which of some scenes no two bodies are near each other: bool, as ``scene``."""
    radius = outer_radius(bodies.kind[scene], bodies.half[scene])  # [n, K]
    x, y, _ = np.moveaxis(bodies.centre[scene], -1, 0)
    one, other = np.triu_indices(radius.shape[1], k=1)
    gap = radius[:, one] + radius[:, other] + _GAP
    apart = (x[:, one] - x[:, other]) ** 2 + (y[:, one] - y[:, other]) ** 2 > gap**2
    return (apart | (other >= count[scene, None])).all(1)
