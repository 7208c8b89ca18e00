from dataclasses import replace

import numpy as np
import pytest

from multiobj_data.rendering.bodies import BOX, CONE, CYLINDER, SHAPES, SPHERE, cosine, interval
from multiobj_data.rendering.raycasting import render
from multiobj_data.rendering.textures import SIDE, TEXELS, TEXTURES, look_up, tiles
from multiobj_data.rendering.world import FLOOR, SURFACES, Bodies, Camera, Light, Room, World

KINDS = range(len(SHAPES))
HALF = {BOX: (0.5, 0.3, 0.7), CYLINDER: (0.4, 0.4, 0.6), SPHERE: (0.5, 0.5, 0.5), CONE: (0.5, 0.5, 0.8)}


def contains(kind, half, p):
    """Membership by definition, in the body's frame: bool [...], of points [..., 3]."""
    x, y, z = p[..., 0], p[..., 1], p[..., 2]
    around = np.hypot(x, y)
    if kind == BOX:
        return (np.abs(p) < half).all(-1)
    if kind == SPHERE:
        return (p**2).sum(-1) < half[0] ** 2
    radius = half[0] if kind == CYLINDER else half[0] * (half[2] - z) / (2 * half[2])
    return (np.abs(z) < half[2]) & (around < radius)


def random_rays(rng, n):
    origin = rng.normal(size=(n, 3))
    origin *= 2 / np.linalg.norm(origin, axis=1, keepdims=True)
    direction = rng.uniform(-0.7, 0.7, (n, 3)) - origin
    return origin, direction / np.linalg.norm(direction, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_ray_is_inside_a_body_exactly_between_near_and_far(kind):
    origin, direction = random_rays(np.random.default_rng(0), 400)
    near, far = interval(kind, tuple(origin.T), tuple(direction.T), HALF[kind])
    t = np.linspace(0, 4, 2001)
    inside = contains(kind, HALF[kind], origin[:, None] + t[:, None] * direction[:, None])
    said = (near[:, None] < t) & (t < far[:, None])
    close = np.minimum(np.abs(t - near[:, None]), np.abs(t - far[:, None])) < 1e-6
    assert ((said == inside) | close).all()
    assert 0.3 < (near < far).mean() < 1  # rays hit and miss


@pytest.mark.parametrize("kind", KINDS)
def test_one_origin_or_one_direction_give_what_arrays_give(kind):
    origin, direction = random_rays(np.random.default_rng(1), 50)
    fan = interval(kind, tuple(origin[0].tolist()), tuple(direction.T), HALF[kind])
    beam = interval(kind, tuple(origin.T), tuple(direction[0].tolist()), HALF[kind])
    same = np.broadcast_to(origin[0], origin.shape), np.broadcast_to(direction[0], origin.shape)
    for got, rays in ((fan, (same[0], direction)), (beam, (origin, same[1]))):
        for one, many in zip(
            got, interval(kind, tuple(rays[0].T), tuple(rays[1].T), HALF[kind]), strict=True
        ):
            np.testing.assert_allclose(one, many, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_rays_along_the_axes_have_no_special_case(kind):
    for axis in range(3):
        direction = np.zeros((1, 3), np.float32)
        direction[0, axis] = 1
        origin = np.full((1, 3), 0.02) - 2 * direction
        near, far = interval(kind, tuple(origin.T), tuple(direction.T), HALF[kind])
        assert near < 2 < far
        with np.errstate(all="raise"):
            interval(kind, tuple((origin + 3 - 3 * direction).T), tuple(direction.T), HALF[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_cosines_are_those_of_the_outward_unit_normal(kind):
    origin, direction = random_rays(np.random.default_rng(2), 500)
    near, far = interval(kind, tuple(origin.T), tuple(direction.T), HALF[kind])
    hit = near < far - 0.05  # edges have no normal
    point = (origin + near[:, None] * direction)[hit]
    axes = np.eye(3).tolist()
    normal = np.stack([cosine(kind, tuple(point.T), HALF[kind], tuple(axis)) for axis in axes], axis=-1)
    np.testing.assert_allclose((normal**2).sum(1), 1, atol=1e-6)
    assert (normal * direction[hit] < 0).any(1).all()
    assert ((normal * direction[hit]).sum(1) < 1e-6).all()
    assert not contains(kind, HALF[kind], point + 1e-4 * normal).any()
    tangent = np.cross(normal, direction[hit])
    assert not contains(kind, HALF[kind], point + 1e-3 * tangent + 1e-4 * normal).any()


def test_tiles_are_periodic_and_within_range():
    assert tiles().shape == (len(TEXTURES), SIDE, SIDE)
    assert tiles().min() == 0
    assert tiles().max() == 1
    rng = np.random.default_rng(0)
    at = rng.integers(0, SIDE, (2, 200)).astype(np.float32) / TEXELS + 1 / (2 * TEXELS)
    for texture in range(len(TEXTURES)):
        number = np.full(200, texture)
        here = look_up(number, at[0], at[1])
        period = SIDE / TEXELS
        np.testing.assert_array_equal(here, look_up(number, at[0] - period, at[1] + 2 * period))
        assert texture == 0 or here.std() > 0.05


def one_world(
    kind=SPHERE, centre=(0.0, 0.0, 1.0), half=(0.4, 0.4, 0.4), light=(0.0, 0.0, 1.0), colour=(1, 0, 0)
):
    """A body above a plain floor, seen from the side."""
    return World(
        count=np.array([1]),
        bodies=Bodies(
            np.array([[kind]]),
            np.array([[centre]]),
            np.array([[half]]),
            np.array([[0.3]]),
            np.array([[colour]], float),
        ),
        room=Room(
            np.array([6.0]),
            np.array([6.0]),
            np.array([4.0]),
            np.zeros((1, 4), int),
            np.full((1, 4, 2, 3), 0.8),
        ),
        camera=Camera(np.array([[-4.0, -4.0, 3.0]]), np.array([[0.0, 0.0, 0.5]]), 1.2),
        light=Light(np.array([light]) / np.linalg.norm(light), np.array([0.7]), np.array([0.3])),
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("light", [(0.0, 0.0, 1.0), (0.7, -0.4, 1.0), (-0.5, 0.6, 0.8)])
def test_shadows_lie_where_the_light_is_blocked(kind, light):
    world = one_world(kind, light=light)
    canvas = 96
    picture = render(world, canvas)
    grey = picture.image[0, :, :, 1]  # the body is red: its green is dark too, but it has a label
    rows, columns = np.nonzero(picture.segments[0] == FLOOR)
    forward, right, down = (axis[0] for axis in world.camera.axes())
    u, v = ((at + 0.5 - canvas / 2) / (1.2 * canvas) for at in (columns, rows))
    ray = forward + u[:, None] * right + v[:, None] * down
    eye = world.camera.position[0]
    floor = eye - ray * (eye[2] / ray[:, 2:])
    toward = world.light.direction[0]
    t = np.linspace(0, 3, 301)[:, None]
    path = floor[:, None] + t * toward - world.bodies.centre[0, 0]  # march to the light
    turn = np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, 1]])
    blocked = contains(kind, world.bodies.half[0, 0], path @ turn).any(1)
    lit = grey[rows, columns] > grey[rows, columns].max() - 3
    dark = grey[rows, columns] < grey[rows, columns].min() + 3
    floor_only = grey[rows, columns]
    assert floor_only.max() > 1.3 * floor_only.min()
    assert blocked.sum() > 50
    assert (lit[~blocked]).mean() > 0.98  # but for pixels on the shadow's rim, which are antialiased
    assert (dark[blocked]).mean() > 0.8


def test_nothing_that_only_touches_the_floor_is_shaded_away():
    world = one_world(BOX, centre=(0.0, 0.0, 0.4), light=(0.0, 0.0, 1.0))
    grey = render(world, 64).image[0, :, :, 1]
    labels = render(world, 64).segments[0]
    inner = np.zeros_like(labels, bool)
    inner[1:-1, 1:-1] = True
    for shift in ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1)):
        inner &= np.roll(labels, shift, (0, 1)) == FLOOR
    assert np.ptp(grey[(labels == FLOOR) & inner]) <= 1  # a light above the box: no shadow beside it


def test_a_body_is_brightest_on_the_side_of_the_light():
    for light, side in (((1.0, -1.0, 0.5), 1), ((-1.0, 1.0, 0.5), -1)):
        picture = render(one_world(SPHERE, light=light), 96)
        red = picture.image[0, :, :, 0].astype(float)
        _, columns = np.nonzero(picture.segments[0] == SURFACES)
        weight = red[picture.segments[0] == SURFACES]
        assert side * (np.average(columns, weights=weight) - columns.mean()) > 0.5


def test_the_projected_centre_is_the_middle_of_a_sphere():
    world = one_world(SPHERE)
    pixel, depth = world.camera.project(world.bodies.centre, 128)
    x0, y0, x1, y1 = render(world, 128).boxes[0, 0]
    assert abs(pixel[0, 0] - [(x0 + x1) / 2, (y0 + y1) / 2]).max() < 1
    assert depth > 0
    behind = world.camera.project(2 * world.camera.position[:, None] - world.bodies.centre, 128)
    assert np.isnan(behind[0]).all()
    assert (behind[1] < 0).all()


def test_a_scene_comes_out_alike_alone_and_in_a_batch():
    worlds = [one_world(kind, light=(0.4, 0.1 * kind, 1.0)) for kind in KINDS]
    together = World(
        np.concatenate([w.count for w in worlds]),
        *(
            type(part)(
                **{
                    name: getattr(part, name)
                    if name == "focal"
                    else np.concatenate([getattr(getattr(w, field), name) for w in worlds])
                    for name in part.__dataclass_fields__
                }
            )
            for field, part in ((f, getattr(worlds[0], f)) for f in ("bodies", "room", "camera", "light"))
        ),
    )
    batch = render(together, 48)
    for index, world in enumerate(worlds):
        alone = render(world, 48)
        for name in ("image", "segments", "boxes", "visible", "amodal"):
            np.testing.assert_array_equal(getattr(batch, name)[index], getattr(alone, name)[0])


def test_a_hidden_body_keeps_its_box_and_its_own_pixels():
    front = one_world(BOX, centre=(0.0, 0.0, 0.5), half=(0.5, 0.5, 0.5))
    bodies = front.bodies
    hidden = Bodies(
        np.array([[BOX, SPHERE]]),
        np.array([[[0.0, 0.0, 0.5], [1.0, 1.0, 0.1]]]),
        np.array([[[0.5, 0.5, 0.5], [0.1, 0.1, 0.1]]]),
        np.array([[0.8, 0.0]]),
        np.repeat(bodies.colour, 2, axis=1),
    )
    picture = render(replace(front, count=np.array([2]), bodies=hidden), 96)
    assert picture.visible[0].tolist() == [1, 0]
    assert not (picture.segments == SURFACES + 1).any()
    assert picture.amodal is not None
    assert picture.amodal[0, 1].any()
    assert np.isfinite(picture.boxes[0]).all()
    assert render(replace(front, count=np.array([2]), bodies=hidden), 96, amodal=False).amodal is None


def test_a_body_shades_what_is_behind_it_and_not_what_is_before_it():
    low = one_world(BOX, centre=(0.0, 0.0, 0.4), half=(0.4, 0.4, 0.4), light=(0.9, -0.4, 1.0))
    both = Bodies(
        np.array([[BOX, CYLINDER]]),
        np.array([[[0.0, 0.0, 0.4], [0.0, 0.0, 1.1]]]),
        np.array([[[0.4, 0.4, 0.4], [0.3, 0.3, 0.3]]]),
        np.array([[0.3, 0.0]]),
        np.ones((1, 2, 3)) * 0.8,
    )
    high = replace(both, kind=both.kind[:, ::-1], centre=both.centre[:, ::-1], half=both.half[:, ::-1])
    stacked = render(replace(low, count=np.array([2]), bodies=both), 192)
    above = render(replace(low, count=np.array([1]), bodies=high), 192)  # the cylinder alone
    beneath = render(replace(low, count=np.array([1]), bodies=both), 192)  # the box alone
    brightness = [picture.image[0, :, :, 0].astype(int) for picture in (stacked, above, beneath)]
    upper = stacked.segments[0] == SURFACES + 1
    upper &= np.roll(upper, 1, 0) & np.roll(upper, -1, 0) & np.roll(upper, 1, 1) & np.roll(upper, -1, 1)
    assert upper.sum() > 20
    np.testing.assert_array_equal(brightness[0][upper], brightness[1][upper])
    lower = stacked.segments[0] == SURFACES
    assert (brightness[0][lower] < brightness[2][lower] - 20).sum() > 10  # the cylinder's shadow on the box
