import math
from functools import cache

import numpy as np
import pytest

from multiobj_data.checks import scene_problems
from multiobj_data.errors import UsageError
from multiobj_data.generation.plan import draw_scenes
from multiobj_data.generation.verification import differences
from multiobj_data.generators.towers import Towers
from multiobj_data.randomness import block_rng

BOX, CYLINDER, SPHERE = 0, 1, 2
VARIANTS = {
    "plain": {"textures": "plain", "light": "fixed", "camera": "fixed"},
    "boxes": {"shapes": "box", "violations": "centre-of-mass", "counts": "3", "amodal": False},
    "falling": {"stable": 0.0, "counts": "2-3", "colours": "random"},
    "curved": {"stable": 0.25, "violations": "curved-support", "counts": "2:1,4:3"},
    "standing": {"stable": 1.0, "counts": "0-8", "canvas": 32, "margin": 0.06},
}


@cache
def towers():
    return draw_scenes(Towers(), 0, "train", 0, 256)


def some(n, **settings):
    return Towers(**settings).scenes(block_rng(5, "train", 0), n, split="train", first=0)


# -- physics, again, in plain Python from what is stored


def volume(shape, size):
    x, y, z = size
    return {BOX: x * y * z, CYLINDER: math.pi / 4 * x * y * z, SPHERE: math.pi / 6 * x * y * z}[shape]


def distance_inside(shape, size, yaw, px, py):
    """Distance of a point to the edge of a face, by the distances to its sides; negative outside."""
    if shape != BOX:
        return size[0] / 2 - math.hypot(px, py)
    corners = [(sx * size[0] / 2, sy * size[1] / 2) for sx, sy in ((1, 1), (-1, 1), (-1, -1), (1, -1))]
    turned = [
        (x * math.cos(yaw) - y * math.sin(yaw), x * math.sin(yaw) + y * math.cos(yaw)) for x, y in corners
    ]
    sides = zip(turned, turned[1:] + turned[:1], strict=True)
    return min(
        ((bx - ax) * (py - ay) - (by - ay) * (px - ax)) / math.hypot(bx - ax, by - ay)
        for (ax, ay), (bx, by) in sides
    )


def first_failures(scenes, b):
    """Return the levels of all contacts of a tower that fail, and the margins of those on flat faces."""
    f = {name: scenes.factors[name][b].tolist() for name in ("class", "position", "size", "yaw")}
    failing, margins = [], {}
    for k in range(scenes.count[b]):
        mass = [volume(f["class"][i], f["size"][i]) for i in range(k, scenes.count[b])]
        cx, cy = (
            sum(m * f["position"][i][axis] for i, m in enumerate(mass, start=k)) / sum(mass)
            for axis in (0, 1)
        )
        sides = [i for i in (k, k - 1) if i >= 0 and not (i == k and f["class"][i] == SPHERE)]
        if k and f["class"][k - 1] == SPHERE:
            failing.append(k - 1)
            continue
        offsets = [
            distance_inside(
                f["class"][i], f["size"][i], f["yaw"][i], cx - f["position"][i][0], cy - f["position"][i][1]
            )
            for i in sides
        ]
        margins[k - 1] = min(offsets, default=math.inf)
        if margins[k - 1] < 0:
            failing.append(k - 1)
    return failing, margins


def test_the_label_is_what_statics_says():
    scenes = towers()
    for b in range(len(scenes)):
        failing, margins = first_failures(scenes, b)
        level = scenes.scene_factors["violation_level"][b]
        assert failing == ([] if level == -1 else [level])
        assert scenes.scene_factors["stable"][b] == (not failing)
        kind = scenes.factors["class"][b, level] if failing else None
        assert scenes.scene_factors["violation"][b] == (0 if not failing else 2 if kind == SPHERE else 1)
        assert min(abs(margin) for margin in margins.values()) >= 0.04 - 1e-5
        for k in range(scenes.count[b]):
            assert scenes.factors["stable"][b, k] == (k not in failing)
            if k in margins:
                assert scenes.factors["margin"][b, k] == pytest.approx(margins[k], abs=1e-5)


def test_every_block_lies_on_the_one_below():
    scenes = towers()
    rng = np.random.default_rng(0)
    size, position = scenes.factors["size"], scenes.factors["position"]
    bottom, top = (position[..., 2] + sign * size[..., 2] / 2 for sign in (-1, 1))
    np.testing.assert_allclose(bottom[:, 0], 0, atol=1e-6)
    np.testing.assert_allclose((bottom[:, 1:] - top[:, :-1])[scenes.present[:, 1:]], 0, atol=1e-5)
    np.testing.assert_array_equal(
        scenes.factors["supported_by"], np.where(scenes.present, np.arange(6) - 1, -1)
    )
    for b in range(len(scenes)):
        for k in range(1, scenes.count[b]):
            shapes, sizes, yaws = (scenes.factors[name][b].tolist() for name in ("class", "size", "yaw"))
            spread = (
                position[b, k - 1, :2] + rng.uniform(-1, 1, (2000, 2)) * 1.5 * size[b, k - 1, :2].max() / 2
            )
            flat = [i for i in (k - 1, k) if shapes[i] != SPHERE]
            points = position[b, [i for i in (k - 1, k) if shapes[i] == SPHERE], :2]
            points = points if len(points) else spread
            assert any(
                all(
                    distance_inside(shapes[i], sizes[i], yaws[i], *(point - position[b, i, :2])) > 0
                    for i in flat
                )
                for point in points.astype(float)
            ), f"scene {b}: block {k} does not touch"


def test_spheres_are_on_top_or_what_fails():
    scenes = towers()
    sphere = scenes.factors["class"] == SPHERE
    top = np.arange(6) == scenes.count[:, None] - 1
    failing = np.arange(6) == scenes.scene_factors["violation_level"][:, None]
    assert not (sphere & ~top & ~failing).any()
    assert (sphere & top).any()


# -- shares


@pytest.mark.parametrize("first", [0, 1000])
def test_shares_of_counts_and_stability_are_exact_together(first):
    scenes = draw_scenes(Towers(canvas=32, textures="plain"), 1, "test", first, 500)
    for count in range(2, 7):
        kinds = scenes.scene_factors["violation"][scenes.count == count]
        np.testing.assert_allclose(np.bincount(kinds), [50, 25, 25], atol=2)


def test_a_share_of_stable_towers_is_met():
    scenes = draw_scenes(
        Towers(canvas=32, stable=0.8, counts="2,3", violations="centre-of-mass"), 0, "train", 0, 200
    )
    assert scenes.scene_factors["stable"].sum() == 160


# -- what is seen


def test_visible_fractions_and_boxes_are_those_of_the_masks():
    scenes = towers()
    assert scenes.amodal is not None
    seen = (scenes.segments[:, None] == np.arange(1, 7)[:, None, None]).sum((2, 3))
    fraction = seen[scenes.present] / scenes.amodal.sum((2, 3))[scenes.present]
    np.testing.assert_allclose(scenes.factors["visible_fraction"][scenes.present], fraction, rtol=1e-6)
    boxes = scenes.boxes[scenes.present]
    assert boxes.min() > 0  # no block is cut off
    assert boxes.max() < 64
    x, y = scenes.factors["x"][scenes.present], scenes.factors["y"][scenes.present]
    assert ((boxes[:, 0] < x) & (x < boxes[:, 2]) & (boxes[:, 1] < y) & (y < boxes[:, 3])).all()


def test_a_block_shows_its_colour():
    scenes = towers()
    for b, k in np.argwhere(scenes.present)[:200]:
        pixels = scenes.image[b][scenes.segments[b] == k + 1]
        if len(pixels) > 60:
            hue, colour = np.median(pixels, axis=0), scenes.factors["colour"][b, k]
            cosine = hue @ colour / np.linalg.norm(hue) / np.linalg.norm(colour)
            assert cosine > 0.95


def test_depth_order_ranks_distance_from_the_eye():
    scenes = towers()
    eye = scenes.scene_factors["camera_position"]
    for b in range(50):
        n = scenes.count[b]
        distance = np.linalg.norm(scenes.factors["position"][b, :n] - eye[b], axis=1)
        assert scenes.factors["depth_order"][b, :n].tolist() == np.argsort(np.argsort(distance)).tolist()


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_every_variant_gives_consistent_scenes(name):
    scenes = some(40, **VARIANTS[name])
    assert list(scene_problems(scenes)) == []
    again = some(40, **VARIANTS[name])
    assert not differences(scenes, again)
    assert scenes.background_segments == 1
    assert (scenes.amodal is None) == (name == "boxes")


def test_a_larger_canvas_shows_the_same_towers():
    small, large = some(8, canvas=64), some(8, canvas=128)
    np.testing.assert_array_equal(small.factors["position"], large.factors["position"])
    np.testing.assert_allclose(small.factors["x"] * 2, large.factors["x"], rtol=1e-5)
    halved = large.image.reshape(8, 64, 2, 64, 2, 3).astype(float).mean((2, 4))
    assert np.abs(halved - small.image).mean() < 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"counts": "1-3"}, "needs 2 blocks"),
        ({"counts": "2-9"}, "at most 8"),
        ({"canvas": 16}, "canvas: expected 32 to 512"),
        ({"stable": 1.5}, "between 0 and 1"),
        ({"stable": math.nan}, "between 0 and 1"),
        ({"margin": 0.5}, "margin: expected"),
        ({"shapes": "sphere"}, "nothing stands on a sphere"),
        ({"shapes": "box"}, "needs spheres"),
        ({"shapes": "box,cone"}, "'cone'"),
        ({"shapes": "box,box"}, "each name once"),
        ({"textures": "brick"}, "Did you mean 'bricks'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        Towers(**settings)
