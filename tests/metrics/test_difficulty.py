"""How hard scenes are: against loops over pixels and objects, and on scenes whose answer is plain."""

import math
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.evaluation.breakdown import bins_of
from metrics.evaluation.difficulty import DIFFICULTIES, RING, difficulty, object_contrast, visible_fraction
from multiobj_data.scenes import Scenes

COLOUR = {1: (0.5,), 3: (0.2126, 0.7152, 0.0722)}


def random_scenes(seed, n=12, size=14, most=4, channels=3, background=2, amodal=True):
    """Rectangles over one another in front of a noisy two-part background; some wholly hidden."""
    rng = np.random.default_rng(seed)
    count = rng.integers(0, most + 1, n)
    image = rng.integers(0, 256, (n, size, size, channels), np.uint8)
    segments = np.zeros((n, size, size), np.uint8)
    segments[:, size // 2 :] = background - 1
    own = np.zeros((n, most, size, size), bool)
    boxes = np.full((n, most, 4), np.nan, np.float32)
    for i in range(n):
        for k in range(count[i]):
            x0, y0 = rng.integers(0, size - 1, 2)
            x1, y1 = x0 + rng.integers(1, size - x0 + 1), y0 + rng.integers(1, size - y0 + 1)
            own[i, k, y0:y1, x0:x1] = True
            segments[i, y0:y1, x0:x1] = background + k
            boxes[i, k] = x0, y0, x1, y1
    return Scenes(
        image, count, segments, boxes, background_segments=background, amodal=own if amodal else None
    )


def by_loops(scenes, i):
    """All columns of scene i, pixel by pixel."""
    ground = scenes.background_segments
    fractions, sizes, contrasts, luminances = [], [], [], []
    for k in range(scenes.count[i]):
        visible = scenes.segments[i] == ground + k
        own = visible if scenes.amodal is None else scenes.amodal[i, k]
        sizes.append(own.sum())
        fractions.append(visible.sum() / own.sum() if scenes.amodal is not None and own.any() else math.nan)
        x0, y0, x1, y1 = scenes.boxes[i, k].astype(int)
        around = [
            scenes.image[i, y, x] / 255
            for y in range(max(y0 - RING, 0), min(y1 + RING, visible.shape[0]))
            for x in range(max(x0 - RING, 0), min(x1 + RING, visible.shape[1]))
            if scenes.segments[i, y, x] < ground
        ]
        if around and visible.any():
            apart = (scenes.image[i][visible] / 255).mean(0) - np.mean(around, 0)
            contrasts.append(math.sqrt((apart**2).mean()))
            weights = COLOUR[3] if len(apart) == 3 else np.full(len(apart), 1 / len(apart))
            luminances.append(abs(sum(w * a for w, a in zip(weights, apart, strict=True))))
    distances, gaps = [], []
    for a, b in combinations(scenes.boxes[i, : scenes.count[i]].astype(float), 2):
        distances.append(
            math.dist(((a[0] + a[2]) / 2, (a[1] + a[3]) / 2), ((b[0] + b[2]) / 2, (b[1] + b[3]) / 2))
        )
        gaps.append(math.hypot(max(0, a[0] - b[2], b[0] - a[2]), max(0, a[1] - b[3], b[1] - a[3])))
    known = [f for f in fractions if f == f]

    def least(values):
        return min(values) if values else math.nan

    return {
        "true_count": scenes.count[i],
        "smallest_visible_fraction": least(known),
        "mean_visible_fraction": np.mean(known) if known else math.nan,
        "smallest_distance": least(distances),
        "smallest_gap": least(gaps),
        "smallest_contrast": least(contrasts),
        "smallest_luminance_contrast": least(luminances),
        "smallest_size": least(sizes),
        "mean_size": np.mean(sizes) if sizes else math.nan,
    }


@pytest.mark.parametrize("amodal", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("background", [1, 4])
def test_every_column_is_what_loops_find(amodal, channels, background):
    scenes = random_scenes(channels, channels=channels, amodal=amodal, background=background)
    found = difficulty(scenes)
    assert list(found) == list(DIFFICULTIES)
    for i in range(len(scenes)):
        expected = by_loops(scenes, i)
        for name, values in found.items():
            assert values.dtype == np.float64
            assert values[i] == pytest.approx(expected[name], abs=1e-12, nan_ok=True), name


def test_the_stored_factor_serves_where_there_are_no_amodal_masks():
    scenes = random_scenes(0, amodal=False)
    stored = np.random.default_rng(1).random(scenes.present.shape).astype(np.float32)
    found = visible_fraction(replace(scenes, factors={"visible_fraction": stored}))
    np.testing.assert_array_equal(found[scenes.present], stored[scenes.present])
    assert np.isnan(found[~scenes.present]).all()
    assert np.isnan(visible_fraction(scenes)).all()


def test_an_object_of_one_pixel_is_visible_or_not():
    segments = np.zeros((2, 4, 4), np.uint8)
    segments[0, 1, 1] = 1
    own = np.zeros((2, 1, 4, 4), bool)
    own[:, 0, 1, 1] = True
    boxes = np.tile(np.float32([1, 1, 2, 2]), (2, 1, 1))
    scenes = Scenes(np.zeros((2, 4, 4, 1), np.uint8), np.ones(2, int), segments, boxes, amodal=own)
    np.testing.assert_array_equal(visible_fraction(scenes), [[1], [0]])


def test_an_object_as_bright_as_its_ground_has_no_contrast_and_a_white_one_on_black_all():
    image = np.zeros((2, 10, 10, 3), np.uint8)
    segments = np.zeros((2, 10, 10), np.uint8)
    segments[:, 3:6, 3:6] = 1
    image[1, 3:6, 3:6] = 255
    boxes = np.tile(np.float32([3, 3, 6, 6]), (2, 1, 1))
    contrast = object_contrast(Scenes(image, np.ones(2, int), segments, boxes))
    np.testing.assert_allclose(contrast.colour, [[0], [1]])
    np.testing.assert_allclose(contrast.luminance, [[0], [1]])


def test_equal_luminance_is_seen_in_colour_alone():
    image = np.zeros((1, 8, 8, 3), np.uint8)
    image[..., 0], image[:, 2:5, 2:5] = 255, (0, round(255 * 0.2126 / 0.7152), 0)
    segments = np.zeros((1, 8, 8), np.uint8)
    segments[:, 2:5, 2:5] = 1
    contrast = object_contrast(Scenes(image, np.ones(1, int), segments, np.float32([[[2, 2, 5, 5]]])))
    assert contrast.luminance[0, 0] < 0.002
    assert contrast.colour[0, 0] > 0.5


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_the_order_of_objects_does_not_matter_except_for_padding(seed):
    scenes = random_scenes(seed, n=4)
    count = scenes.count.max()
    swapped = np.arange(scenes.boxes.shape[1])
    swapped[:count] = np.random.default_rng(seed).permutation(count)
    keep = scenes[scenes.count == count]  # all have the same objects: relabelling stays valid
    label = np.concatenate([np.arange(2), 2 + np.argsort(swapped)]).astype(np.uint8)
    other = replace(
        keep, segments=label[keep.segments], boxes=keep.boxes[:, swapped], amodal=keep.amodal[:, swapped]
    )
    for name, values in difficulty(keep).items():
        np.testing.assert_allclose(difficulty(other)[name], values, atol=1e-12, err_msg=name)


def test_scenes_without_places_for_objects_have_no_value():
    scenes = Scenes(
        np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, int), np.zeros((2, 4, 4), np.uint8), np.zeros((2, 0, 4))
    )
    found = difficulty(scenes)
    assert (found.pop("true_count") == 0).all()
    assert all(np.isnan(values).all() for values in found.values())


# -- bins


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.floats(-5, 5), st.just(math.nan)), max_size=40), st.integers(1, 6))
def test_bins_hold_every_known_scene_once_and_do_not_overlap(values, most):
    columns = {"hard": np.array(values, float), "score": np.arange(len(values), dtype=float)}
    found = bins_of(columns, "hard", ["score"], most)
    known = columns["hard"][~np.isnan(columns["hard"])]
    assert sum(each.images for each in found) == len(known)
    assert len(found) <= max(most, 0)
    for left, right in pairwise(found):
        assert left.low <= left.high < right.low <= right.high
    total = sum(each.metrics["score"]["mean"] * each.images for each in found)
    assert total == pytest.approx(columns["score"][~np.isnan(columns["hard"])].sum())


def test_bins_of_many_values_are_equally_full_and_counts_are_one_bin_each(rng):
    columns = {"hard": rng.permutation(100).astype(float), "true_count": rng.integers(0, 9, 100)}
    assert [each.images for each in bins_of(columns, "hard", [], 5)] == [20] * 5
    assert [each.label for each in bins_of(columns, "true_count", [], 5)] == [str(n) for n in range(9)]
