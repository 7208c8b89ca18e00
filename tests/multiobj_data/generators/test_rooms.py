from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from multiobj_data.checks import scene_problems
from multiobj_data.errors import UsageError
from multiobj_data.generation.plan import draw_scenes
from multiobj_data.generation.verification import differences
from multiobj_data.generators.rooms import FOCAL, Rooms
from multiobj_data.randomness import block_rng

BOX, CYLINDER, SPHERE, CONE = range(4)
SKY, FLOOR, WALL_X, WALL_Y = range(4)


@cache
def six():
    return draw_scenes(Rooms(counts="0,6"), 0, "train", 0, 128)


def some(n, **settings):
    return Rooms(**settings).scenes(block_rng(5, "train", 0), n, split="train", first=0)


def contains(kind, size, p):
    """Membership by definition, in the body's frame: bool [...], of points [..., 3]."""
    half = size / 2
    around = np.hypot(p[..., 0], p[..., 1])
    if kind == BOX:
        return (np.abs(p) < half).all(-1)
    if kind == SPHERE:
        return (p**2).sum(-1) < half[0] ** 2
    radius = half[0] if kind == CYLINDER else half[0] * (half[2] - p[..., 2]) / size[2]
    return (np.abs(p[..., 2]) < half[2]) & (around < radius)


def march(scenes, b, canvas):
    """Render the label map of objects again, slowly, from stored factors alone: steps along each pixel's ray."""
    eye, target = (scenes.scene_factors[f"camera_{name}"][b].astype(float) for name in ("position", "target"))
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    at = (np.arange(canvas) + 0.5 - canvas / 2) / (FOCAL * canvas)
    ray = forward + at[None, :, None] * right + at[:, None, None] * down  # [H, W, 3]
    t = np.arange(1.0, 11.0, 0.02)
    first = np.full((canvas, canvas), np.inf)
    label = np.zeros((canvas, canvas), int)
    amodal = np.zeros((scenes.count[b], canvas, canvas), bool)
    for k in range(scenes.count[b]):
        yaw = scenes.factors["yaw"][b, k]
        turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
        offset = (eye - scenes.factors["position"][b, k]) @ turn
        points = offset + t[:, None, None, None] * (ray @ turn)
        inside = contains(scenes.factors["class"][b, k], scenes.factors["size"][b, k], points)  # [T, H, W]
        amodal[k] = inside.any(0)
        entry = np.where(amodal[k], t[inside.argmax(0)], np.inf)
        label[entry < first] = k + 4
        first = np.minimum(first, entry)
    return label, amodal


def test_label_maps_and_amodal_masks_are_those_of_marching_along_rays():
    scenes = some(6, counts="3", canvas=48)
    assert scenes.amodal is not None
    for b in range(len(scenes)):
        label, amodal = march(scenes, b, 48)
        objects = np.where(scenes.segments[b] >= 4, scenes.segments[b], 0)
        assert (objects != label).sum() <= 6  # steps miss edges that a ray only grazes
        assert (scenes.amodal[b] != amodal).sum() <= 9


def test_objects_stand_on_the_floor_apart_inside_and_in_view():
    scenes = six()
    position, size = scenes.factors["position"], scenes.factors["size"]
    np.testing.assert_allclose((position - size / 2)[..., 2][scenes.present], 0, atol=1e-6)
    for b in np.flatnonzero(scenes.count == 6):
        half = size[b, :, :2] / 2
        radius = np.where(scenes.factors["class"][b] == BOX, np.hypot(*half.T), half[:, 0])
        away = np.linalg.norm(position[b, :, None, :2] - position[b, :, :2], axis=-1)
        assert (away > radius[:, None] + radius - 10 * np.eye(6)).all()
    boxes = scenes.boxes[scenes.present]
    assert boxes.min() >= 0
    assert boxes.max() <= 64
    assert set(np.unique(scenes.factors["class"])) == {-1, 0, 1, 2, 3}


@pytest.mark.parametrize("farthest", [4.0, 5.5, 9.0])
def test_objects_stand_anywhere_up_to_the_farthest_asked_for(farthest):
    scenes = some(256, counts="1", farthest=farthest)
    away = np.linalg.norm(scenes.factors["position"][:, 0, :2], axis=-1)
    assert away.max() <= farthest
    assert away.max() > min(0.95 * farthest, 8)  # the room's walls are nearer than 9
    assert not differences(some(8, farthest=9.0), some(8))


def test_background_has_four_labels_in_one_order():
    scenes = six()
    assert scenes.background_segments == 4
    empty = scenes[scenes.count == 0]
    for b in range(len(empty)):
        labels, image = empty.segments[b], empty.image[b]
        assert set(np.unique(labels)) <= {SKY, FLOOR, WALL_X, WALL_Y}
        for column in labels.T:
            order = [int(column[0]), *(int(v) for u, v in pairwise(column) if u != v)]
            rank = {SKY: 0, WALL_X: 1, WALL_Y: 1, FLOOR: 2}
            assert [rank[v] for v in order] == sorted(rank[v] for v in order)  # sky over wall over floor
        for surface in (FLOOR, WALL_X, WALL_Y):
            pixels = image[labels == surface]
            assert np.median(np.abs(pixels - np.median(pixels, axis=0))) <= 2 if len(pixels) else True
    shown = [(empty.segments == label).any((1, 2)).mean() for label in range(4)]
    assert shown[FLOOR] == 1
    assert min(shown) > 0.5
    both = (empty.segments == WALL_X).any((1, 2)) & (empty.segments == WALL_Y).any((1, 2))
    for labels in empty.segments[both]:
        columns = [np.nonzero(labels == wall)[1].mean() for wall in (WALL_X, WALL_Y)]
        assert columns[0] > columns[1]  # the camera looks along +x and +y: the wall across x is on the right


def test_colours_are_identical_where_asked():
    same = some(32, counts="4-6", colours="identical").factors["colour"]
    assert (np.nanmax(same, 1) == np.nanmin(same, 1)).all()
    assert np.nanstd(same[:, 0], 0).min() > 0.05  # but differ between scenes
    other = some(32, counts="4-6").factors["colour"]
    assert (np.nanmax(other, 1) > np.nanmin(other, 1)).any(1).all()


def test_a_visible_fraction_is_the_share_of_own_pixels_seen():
    scenes = six()
    assert scenes.amodal is not None
    seen = (scenes.segments[:, None] == np.arange(4, 10)[:, None, None]).sum((2, 3))
    fraction = seen[scenes.present] / scenes.amodal.sum((2, 3))[scenes.present]
    np.testing.assert_allclose(scenes.factors["visible_fraction"][scenes.present], fraction, rtol=1e-6)
    assert fraction.min() < 0.5 < np.median(fraction)


@pytest.mark.parametrize(
    "settings",
    [
        {"counts": "0"},
        {"counts": "7", "textures": "checker,noise,bricks"},
        {"shapes": "cone", "light": "fixed", "camera": "fixed", "canvas": 32},
        {"counts": "5", "farthest": 5},
        {"counts": "0:1,2:3", "shapes": "box,sphere", "amodal": False, "canvas": 96},
    ],
)
def test_every_variant_gives_consistent_scenes(settings):
    scenes = some(24, **settings)
    assert list(scene_problems(scenes)) == []
    assert not differences(scenes, some(24, **settings))


def test_acceptance_is_that_of_drawing():
    shares = Rooms(counts="1,5").acceptance(np.random.default_rng(0))
    assert shares[1] == 1
    attempts = some(256, counts="5").scene_factors["attempts"]
    assert 0.5 < shares[5] * attempts.mean() < 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"counts": "8"}, "at most 7"),
        ({"canvas": 1024}, "32 to 512"),
        ({"shapes": "cube"}, "expected names out of box, cylinder, sphere, cone"),
        ({"shapes": ""}, "expected names"),
        ({"textures": "plain,plain"}, "each name once"),
        ({"counts": "4", "farthest": 4}, "at most 3 objects fit into a room with farthest=4, got 4"),
        ({"farthest": 3}, "farthest: expected 4 to 9 units of length, got 3"),
        ({"farthest": float("nan")}, "expected 4 to 9"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        Rooms(**settings)
