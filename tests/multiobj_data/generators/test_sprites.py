import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from multiobj_data.errors import UsageError
from multiobj_data.generation.plan import draw_scenes
from multiobj_data.generators.sprites import Sprites

CIRCLE, SQUARE, DIAMOND = range(3)
ONE = Sprites(counts="1", amodal=True)
SIZE = 50


def supair(shape, side, left, top):
    """Set a sprite's pixels as SuPAIR's make_sprites does: radius side // 2 around the pixel there."""
    mask = np.zeros((SIZE, SIZE), bool)
    radius = side // 2
    middle_x, middle_y = left + radius, top + radius
    for y in range(SIZE):
        for x in range(SIZE):
            if shape == SQUARE:
                mask[y, x] = left <= x < left + side and top <= y < top + side
            elif shape == CIRCLE:
                mask[y, x] = (x - middle_x) ** 2 + (y - middle_y) ** 2 < radius**2
            else:
                mask[y, x] = abs(x - middle_x) + abs(y - middle_y) < radius
    return mask


def corners(scenes):
    """Left and top of the patches, from the centre of the ink: int [n, 2] of all sprites in order."""
    shape, side, x, y = (scenes.factors[name][scenes.present] for name in ("shape", "side", "x", "y"))
    ink_half = np.where(shape == SQUARE, side / 2, side // 2 + 0.5)  # circles and diamonds: around a pixel
    corner = np.stack([x, y], 1) - ink_half[:, None]
    assert (corner == corner.astype(int)).all()
    return corner.astype(int)


def test_pixels_are_those_of_supairs_formulas():
    scenes = draw_scenes(Sprites(counts="2", amodal=True), 0, "train", 0, 150)
    corner = corners(scenes).reshape(150, 2, 2)
    seen = set()
    for b, k in itertools.product(range(150), range(2)):
        shape, side = int(scenes.factors["shape"][b, k]), int(scenes.factors["side"][b, k])
        expected = supair(shape, side, *corner[b, k])
        assert np.array_equal(scenes.amodal[b, k], expected)
        assert np.array_equal(scenes.segments[b] == k + 1, expected)
        seen.add((shape, side))
    assert len(seen) == 15  # 3 shapes of 5 sides


def test_greys_are_those_of_supairs_models():
    scenes = draw_scenes(replace(ONE, counts="0-2"), 0, "train", 0, 100)
    shape = np.where(scenes.present, scenes.factors["shape"], -1)
    for b in range(100):
        expected = np.zeros((SIZE, SIZE))
        for k in range(scenes.count[b]):
            expected[scenes.segments[b] == k + 1] = {CIRCLE: 1.0, SQUARE: 0.8, DIAMOND: 0.7}[shape[b, k]]
        assert np.abs(scenes.image[b, ..., 0] / 255 - expected).max() <= 0.5 / 255 + 1e-9
    stored = scenes.factors["colour"][scenes.present]
    assert np.allclose(stored, np.array([1, 0.8, 0.7])[shape[scenes.present]][:, None])


def test_rgb_has_a_channel_a_shape():
    grey, rgb = (draw_scenes(replace(ONE, colours=kind), 0, "train", 0, 100) for kind in ("grey", "rgb"))
    assert np.array_equal(grey.segments, rgb.segments)
    for b in range(100):
        channel = int(rgb.factors["shape"][b, 0])
        assert rgb.image[b].any((0, 1)).tolist() == [number == channel for number in range(3)]
        assert np.array_equal(rgb.image[b, ..., channel], 255 * rgb.amodal[b, 0])


def test_places_sides_and_shapes_follow_supairs_law():
    n = 20_000
    scenes = draw_scenes(replace(ONE, amodal=False), 0, "train", 0, n)
    side, shape, corner = scenes.factors["side"][:, 0], scenes.factors["shape"][:, 0], corners(scenes)
    assert (corner.min(), corner.max()) == (0, 38)
    for axis in corner.T:
        assert stats.chisquare(np.bincount(axis, minlength=39)).pvalue > 1e-4
    quarter = np.bincount(corner[:, 0] // 13 * 3 + corner[:, 1] // 13, minlength=9)
    assert stats.chisquare(quarter).pvalue > 1e-4  # the axes are independent
    expected = Counter()
    for left, top in itertools.product(range(39), repeat=2):
        sides = range(12, min(16, SIZE - left, SIZE - top) + 1)
        for s in sides:
            expected[s] += n / 39**2 / len(sides)
    observed = np.bincount(side)[12:]
    assert stats.chisquare(observed, [expected[s] for s in range(12, 17)]).pvalue > 1e-4
    published = np.array([0.27, 0.22, 0.19, 0.17, 0.17])  # of 12 .. 16, measured on the authors' code
    assert np.abs(observed / n - published).max() < 0.005 + 4 * np.sqrt(0.25 / n)
    table = np.histogram2d(shape, side, [3, 5])[0]
    assert stats.chisquare(table.sum(1)).pvalue > 1e-4
    assert stats.chi2_contingency(table).pvalue > 1e-4


@pytest.mark.parametrize("rule", ["pixels", "boxes", "boxes-iou", "rows-and-columns", "legacy"])
def test_no_scene_breaks_its_rule(rule):
    options = {"boxes": {"margin": 4}, "boxes-iou": {"max_iou": 0.1}}.get(rule, {})
    generator = Sprites(counts="2", amodal=True, overlap_rule=rule.removesuffix("-iou"), **options)
    scenes = draw_scenes(generator, 0, "train", 0, 600)
    a, b = scenes.boxes[:, 0], scenes.boxes[:, 1]
    shared = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    both = (scenes.amodal[:, 0] & scenes.amodal[:, 1]).any((1, 2))
    if rule == "pixels":
        assert not both.any()
        assert (shared > 0).all(1).any()
    elif rule == "boxes":
        assert (-shared.min(1)).min() == 4
    elif rule == "boxes-iou":
        intersection = np.maximum(shared, 0).prod(1)
        iou = intersection / ((a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - intersection)
        assert 0.05 < iou.max() <= 0.1
    elif rule == "rows-and-columns":
        assert shared.max() == 0
    else:
        assert not both.any()  # each sprite's mask is full, so that a shared pixel saturates


def test_sprites_without_overlap_are_uniform_over_the_valid_pairs():
    small = Sprites(counts="2", canvas=10, sides=(4, 5))
    scenes = draw_scenes(small, 0, "train", 0, 4000)
    corner = corners(scenes).reshape(-1, 4)
    # Free pairs, thrown away whole where a pixel is used twice: the same law, by brute force.
    free = draw_scenes(replace(small, overlap=True, amodal=True), 1, "train", 0, 20_000)
    valid = ~free.amodal.all(1).any((1, 2))
    expected = corners(free).reshape(-1, 4)[valid]
    for found, wanted in zip(corner.T, expected.T, strict=True):
        table = [np.bincount(values, minlength=7) for values in (found, wanted)]
        assert stats.chi2_contingency(table).pvalue > 1e-4
    attempts = scenes.scene_factors["attempts"]
    assert attempts.min() == 1
    assert abs(1 / attempts.mean() - valid.mean()) < 5 * np.sqrt(0.25 / 4000)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sides": (16, 12)}, "smallest <= largest"),
        ({"sides": (3, 12)}, "4 <= smallest"),
        ({"sides": (12, 60)}, "canvas"),
        ({"canvas": 15}, "canvas"),
        ({"distinct": "shapes"}, "Did you mean 'shape'"),
        ({"holdout": "shape=sqare"}, "Did you mean 'square'"),
        ({"ood": "colours=rgb"}, "3 channel.*1"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        Sprites(**settings)
