"""Segmentation in the table of metrics: what of scenes and predictions is scored, and by whose rules."""

from dataclasses import replace

import numpy as np
import pytest

from metrics import METRICS, adjusted_rand_index, matched_mask_iou, mean_segmentation_covering
from multiobj_data.errors import UsageError
from multiobj_data.scenes import Prediction, Scenes

NAMES = ["ari", "ari_fg", "sc_fg", "msc_fg", "mbo", "mask_miou"]


@pytest.fixture
def rooms(rng):
    """Scenes with two background segments and up to two objects."""
    segments = rng.integers(0, 4, (5, 6, 6)).astype(np.uint8)
    boxes = np.zeros((5, 2, 4), np.float32)
    return Scenes(np.zeros((5, 6, 6, 1), np.uint8), np.full(5, 2), segments, boxes, background_segments=2)


@pytest.fixture
def answer(rng):
    masks = rng.dirichlet(np.ones(5), (5, 6, 6)).transpose(0, 3, 1, 2)
    return Prediction(masks=masks, background_slots=(3, 4))


def score(name, scenes, answer, convention=None):
    return METRICS[name].under(convention).function(scenes, answer)


def test_all_of_a_scenes_backgrounds_are_background(rooms, answer):
    labels = answer.masks.argmax(1)
    want = adjusted_rand_index(rooms.segments, labels, background=(0, 1), foreground_only=True)
    np.testing.assert_array_equal(score("ari_fg", rooms, answer), want)
    want = mean_segmentation_covering(rooms.segments, labels, background=(0, 1), foreground_only=True)
    np.testing.assert_array_equal(score("msc_fg", rooms, answer), want)
    np.testing.assert_array_equal(score("mbo", rooms, answer), want)
    assert (score("sc_fg", rooms, answer) != want).any()
    np.testing.assert_array_equal(score("ari", rooms, answer), adjusted_rand_index(rooms.segments, labels))


def test_slots_that_the_model_calls_background_are_no_objects(rooms, answer):
    labels, options = answer.masks.argmax(1), {"background": (0, 1)}
    want = matched_mask_iou(rooms.segments, labels, predicted_background=(3, 4), **options)
    np.testing.assert_array_equal(score("mask_miou", rooms, answer), want)
    np.testing.assert_array_equal(score("mask_miou", rooms, answer, "mobj"), want)
    silent = replace(answer, background_slots=())
    want = matched_mask_iou(rooms.segments, labels, **options)
    np.testing.assert_array_equal(score("mask_miou", rooms, silent), want)
    ocl = matched_mask_iou(rooms.segments, labels, predicted_background=(), denominator="true", **options)
    np.testing.assert_array_equal(score("mask_miou", rooms, answer, "ocl"), ocl)


@pytest.mark.parametrize("name", NAMES)
def test_perfect_masks_score_1_also_where_they_are_soft(rooms, name):
    hard = rooms.segments[:, None] == np.arange(4)[:, None, None]
    soft = Prediction(masks=0.2 + 0.2 * hard, background_slots=(0, 1))
    np.testing.assert_allclose(score(name, rooms, soft), 1)
    silent = replace(soft, background_slots=())
    np.testing.assert_allclose(score(name, rooms, silent), 1)


def test_metrics_speak_dialects(rooms, answer):
    empty = replace(rooms, segments=rooms.segments % 2)
    assert np.isnan(score("ari_fg", empty, answer)).all()
    assert (score("ari_fg", empty, answer, "emorl") == 0).all()
    assert (score("ari_fg", empty, answer, "genesis") == 1).all()
    assert (score("msc_fg", empty, answer, "genesis") == 0).all()
    for name in NAMES:
        spec = METRICS[name]
        assert spec.definition()["convention"] == "mobj"
        assert spec.under("mobj").definition()["convention"] == "mobj"
        assert spec.needs == ("masks",)
    assert METRICS["ari"].under("savi").definition()["convention"] == "savi"
    with pytest.raises(UsageError, match="defines no segmentation covering; those that do: mobj, genesis"):
        METRICS["sc_fg"].under("savi")
