"""Towers: blocks stacked in a room, with the exact answer to whether they stand, after ShapeStacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Literal

import numpy as np

from multiobj_data.blocks.stacking import CENTRE_OF_MASS, CURVED_SUPPORT, NONE, Stacks, stack
from multiobj_data.composition.counts import Counts, weighted
from multiobj_data.errors import UsageError
from multiobj_data.rendering.bodies import SHAPES, outer_radius
from multiobj_data.rendering.raycasting import render
from multiobj_data.rendering.scenery import (
    body_factors,
    daylight,
    distinct_hues,
    parse_names,
    strong_colours,
    textured_colours,
    view_factors,
)
from multiobj_data.rendering.textures import TEXTURES
from multiobj_data.rendering.world import SURFACES, Bodies, Camera, Room, World, unit_circle
from multiobj_data.scenes import Scenes

FOCAL = 1.4
"""Focal length in picture widths: an angle of view of 39 degrees."""

_MOST = 8  # blocks; towers of more that fail at one low contact alone hardly exist


@dataclass(frozen=True)
class Towers:
    """Towers of blocks on a textured floor, in the spirit of ShapeStacks (Groth et al. 2018).

    In an unstable tower exactly one contact fails: the centre of mass of what lies above is outside the area of
    contact (ShapeStacks' VCOM), or it lies on a sphere (VPSF). Blocks have equal density; see
    `multiobj_data.blocks.stability`. Objects are numbered from bottom to top. The label map has one background.

    Scene factors: ``stable`` (int8, 1 stands), ``violation`` (int8: 0 none, 1 centre of mass, 2 curved support),
    ``violation_level`` (int16: the object on which the part that falls lies; -1 none; ShapeStacks' index less 1),
    ``attempts``, and those of camera, light and textures. Object factors besides `scenery.body_factors`: ``level``,
    ``supported_by`` (the object below, -1 the floor), ``stable`` (int8, 1 if what lies on it stays) and ``margin``
    (units of length, how far inside its area of contact the weight upon it acts, negative outside; NaN at the top).

    Args:
        counts: Blocks a tower: ``"2-6"`` (equal shares, exact, of each count and stability together); at most 8.
        canvas: Side of the scene in pixels.
        stable: Share of towers that stand.
        violations: How unstable towers fail: centre-of-mass, curved-support, or both in equal shares.
        shapes: Comma-separated: box, cylinder, and sphere (on top; and below, in curved-support towers).
        margin: Least distance, in units of length (blocks are 0.6 to 1.4 wide), of a centre of mass from the edge
            at which a tower tips, so that no label is ambiguous.
        textures: Comma-separated, what floor and walls are chosen from: plain, checker, stripes, tiles, noise, bricks.
        light: varied (direction and strength differ) or fixed.
        camera: varied (where it stands, its height and distance differ) or fixed.
        colours: distinct (hues spread within a tower) or random.
        amodal: Whether to keep each block's own pixels beside the label map.
    """

    id: ClassVar[str] = "towers-v1"

    counts: str = "2-6"  # ShapeStacks
    canvas: int = 64  # GENESIS, SRI: ShapeStacks at 64x64
    stable: float = 0.5  # ShapeStacks
    violations: Literal["both", "centre-of-mass", "curved-support"] = "both"
    shapes: str = "box,cylinder,sphere"  # ShapeStacks, scenarios `ccs`
    margin: float = 0.04
    textures: str = ",".join(TEXTURES)
    light: Literal["varied", "fixed"] = "varied"
    camera: Literal["varied", "fixed"] = "varied"
    colours: Literal["distinct", "random"] = "distinct"
    amodal: bool = True

    def __post_init__(self) -> None:
        parse_names("textures", self.textures, TEXTURES)
        counts = Counts(self.counts)
        if not 32 <= self.canvas <= 512:
            raise UsageError(f"canvas: expected 32 to 512 pixels, got {self.canvas}.")
        if counts.largest > _MOST:
            raise UsageError(f"counts: expected at most {_MOST} blocks a tower, got {counts.largest}.")
        if not 0 <= self.stable <= 1:
            raise UsageError(f"stable: expected a share between 0 and 1, got {self.stable}.")
        if not 0.01 <= self.margin <= 0.06:
            raise UsageError(f"margin: expected 0.01 to 0.06 units of length, got {self.margin}.")
        self._refuse_contradictions(counts)

    def _refuse_contradictions(self, counts: Counts) -> None:
        shapes = parse_names("shapes", self.shapes, SHAPES[:3])
        if shapes == ("sphere",):
            raise UsageError("shapes: nothing stands on a sphere; add box or cylinder.")
        if self.stable < 1 and min(counts.weights) < 2:
            raise UsageError(
                f"counts: an unstable tower needs 2 blocks, got {self.counts!r}; use 2 or more, or --set stable=1."
            )
        if self.stable < 1 and self.violations != "centre-of-mass" and "sphere" not in shapes:
            raise UsageError(
                f"violations: {self.violations!r} needs spheres, got shapes {self.shapes!r}; add sphere, or use "
                "--set violations=centre-of-mass."
            )

    @property
    def vocabulary(self) -> Mapping[str, Mapping[str, int]]:
        """What the values of factors are called: the classes."""
        return {"class": {name: number for number, name in enumerate(SHAPES[:3])}}

    def scenes(self, rng: np.random.Generator, n: int, *, split: str = "train", first: int = 0) -> Scenes:
        """Draw ``n`` towers; every split has the same law."""
        count, violation = self._draw_kinds(rng, n, first)
        shapes = tuple(SHAPES.index(name) for name in parse_names("shapes", self.shapes, SHAPES[:3]))
        stacks = stack(rng, count, violation, shapes, self.margin)
        world = self._world(rng, count, stacks)
        drawn = render(world, self.canvas, amodal=self.amodal)
        objects = drawn.segments >= SURFACES
        return Scenes(
            image=drawn.image,
            count=count,
            segments=np.where(objects, drawn.segments - (SURFACES - 1), 0).astype(np.uint8),
            boxes=drawn.boxes,
            factors=body_factors(world, self.canvas)
            | _physics(count, stacks)
            | {"visible_fraction": drawn.visible},
            scene_factors={
                "stable": (violation == NONE).astype(np.int8),
                "violation": violation.astype(np.int8),
                "violation_level": stacks.level.astype(np.int16),
                "attempts": stacks.attempts,
            }
            | view_factors(world),
            amodal=drawn.amodal,
        )

    # -- which towers

    def _draw_kinds(self, rng: np.random.Generator, n: int, first: int) -> tuple[np.ndarray, np.ndarray]:
        """Return counts and violations, int64 ``[n]``; shares of the pairs are exact, as `Counts` makes them."""
        counts = Counts(self.counts).weights
        kinds = self._kind_weights()
        pairs = [(count, kind) for count in counts for kind in kinds]
        weights = [counts[count] * kinds[kind] for count, kind in pairs]
        number = Counts(weighted(dict(enumerate(weights)))).draw(rng, n, first)
        count, violation = np.array(pairs)[number].T
        return count, violation

    def _kind_weights(self) -> dict[int, int]:
        """Return the smallest whole numbers that give the shares of kinds (to one part in a thousand)."""
        share = Fraction(self.stable).limit_denominator(1000)
        failing = {
            "both": (CENTRE_OF_MASS, CURVED_SUPPORT),
            "centre-of-mass": (CENTRE_OF_MASS,),
            "curved-support": (CURVED_SUPPORT,),
        }[self.violations]
        weights = {NONE: share.numerator * len(failing)}
        weights |= dict.fromkeys(failing, share.denominator - share.numerator)
        return {kind: weight for kind, weight in weights.items() if weight}

    # -- the view

    def _world(self, rng: np.random.Generator, count: np.ndarray, stacks: Stacks) -> World:
        """Put towers into rooms, and a camera before them that shows them whole."""
        n, k = stacks.kind.shape
        hue = distinct_hues(rng, n, k) if self.colours == "distinct" else rng.random((n, k))
        bodies = Bodies(stacks.kind, stacks.centre, stacks.half, stacks.yaw, strong_colours(rng, hue))
        play = rng.uniform(-1, 1, (5, n)) if self.camera == "varied" else np.zeros((5, n))
        azimuth = np.deg2rad(
            225 + 35 * play[0]
        )  # the camera looks into the corner of the walls, at 45 degrees
        raised = np.deg2rad(16 + 9 * play[1])
        height, reach = _extent(count, stacks)
        distance = (2.0 + 1.5 * np.maximum(height, 1.5 * reach) + reach) * (1 + 0.08 * play[2])
        turn, lift = unit_circle(azimuth), unit_circle(raised)
        target = np.stack([0.15 * play[3], 0.15 * play[4], height / 2], axis=-1)
        away = np.stack([turn[0] * lift[0], turn[1] * lift[0], lift[1]], axis=-1)
        camera = Camera(target + distance[:, None] * away, target, FOCAL)
        texture, colour = textured_colours(rng, n, parse_names("textures", self.textures, TEXTURES))
        wall_x, wall_y = rng.uniform(2.5, 5.0, (2, n)) + reach
        room_height = np.maximum(
            rng.uniform(3.0, 6.0, n), camera.position[:, 2] + 0.3
        )  # hides what is beyond
        room = Room(wall_x, wall_y, room_height, texture, colour)
        return World(count, bodies, room, camera, daylight(rng, azimuth, self.light == "varied"))


def _extent(count: np.ndarray, stacks: Stacks) -> tuple[np.ndarray, np.ndarray]:
    """Return towers' heights, and the radii of the upright cylinders around them: ``[M]`` each."""
    present = np.arange(stacks.kind.shape[1]) < count[:, None]
    top = np.where(present, stacks.centre[..., 2] + stacks.half[..., 2], 0).max(1, initial=0)
    x, y = stacks.centre[..., 0], stacks.centre[..., 1]
    around = np.sqrt(x * x + y * y) + outer_radius(stacks.kind, stacks.half)
    return top, np.where(present, around, 0).max(1, initial=0)


def _physics(count: np.ndarray, stacks: Stacks) -> dict[str, np.ndarray]:
    """Return the object factors that say how blocks carry each other."""
    number = np.arange(stacks.kind.shape[1])
    present = number < count[:, None]
    level = np.where(present, number, -1)
    upon = np.full(stacks.margin.shape, np.nan)
    upon[:, :-1] = stacks.margin[:, 1:]  # of the contact on a block, not beneath it; NaN at the top
    stable = np.where(number == stacks.level[:, None], 0, 1)
    return {
        "level": level.astype(np.int16),
        "supported_by": np.where(present, level - 1, -1).astype(np.int16),
        "stable": np.where(present, stable, -1).astype(np.int8),
        "margin": upon.astype(np.float32),
    }
