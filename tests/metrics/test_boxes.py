"""Box overlap and matching, against torchvision, pixel sets and all permutations."""

import itertools
import math

import numpy as np
import pytest
import torch

from metrics import box_iou, matched_box_iou
from metrics.matching import match


def some_boxes(rng, *shape, size=30):
    corner = rng.uniform(0, size, (*shape, 2))
    return np.concatenate([corner, corner + rng.uniform(1, size / 2, (*shape, 2))], -1)


def test_pairwise_iou_is_that_of_torchvision(rng):
    box_iou_reference = pytest.importorskip("torchvision.ops").box_iou
    true, predicted = some_boxes(rng, 20, 3), some_boxes(rng, 20, 5)
    for t, p, iou in zip(true, predicted, box_iou(true, predicted), strict=True):
        np.testing.assert_allclose(
            iou, box_iou_reference(torch.tensor(t), torch.tensor(p)).numpy(), atol=1e-12
        )


def test_half_open_boxes_are_pixel_sets(rng):
    low = rng.integers(0, 6, (50, 2, 2))
    boxes = np.concatenate([low, low + rng.integers(1, 5, (50, 2, 2))], -1)
    for (a, b), iou in zip(boxes, box_iou(boxes[:, :1] * 1.0, boxes[:, 1:] * 1.0), strict=True):
        pixels = [{(x, y) for x in range(q[0], q[2]) for y in range(q[1], q[3])} for q in (a, b)]
        assert iou[0, 0] == pytest.approx(len(pixels[0] & pixels[1]) / len(pixels[0] | pixels[1]))


def test_an_empty_box_meets_nothing_and_two_have_no_iou():
    box, inverted = np.array([[[0.0, 0, 2, 2]]]), np.array([[[2.0, 2, 1, 1]]])
    assert box_iou(box, inverted) == 0
    assert np.isnan(box_iou(inverted, inverted))


def brute_force(true, predicted):
    """Best summed IoU over all one-to-one pairings, over the larger number of boxes."""
    small, large = sorted((true, predicted), key=len)
    if not len(small):
        return 0.0 if len(large) else math.nan
    iou = box_iou(small[None], large[None])[0]
    best = max(
        sum(iou[i, j] for i, j in enumerate(chosen))
        for chosen in itertools.permutations(range(len(large)), len(small))
    )
    return best / len(large)


def test_matched_iou_is_the_best_of_all_matchings(rng):
    true, predicted = some_boxes(rng, 120, 4), some_boxes(rng, 120, 5)
    count, present = rng.integers(0, 5, 120), rng.random((120, 5)) < 0.5
    got = matched_box_iou(true, count, predicted, present)
    want = [brute_force(t[:n], p[on]) for t, n, p, on in zip(true, count, predicted, present, strict=True)]
    np.testing.assert_allclose(got, want, atol=1e-12)
    assert np.isnan(want).any()
    assert (np.array(want) > 0.2).any()


def test_the_greedy_matching_is_not_good_enough():
    true = np.array([[[0.0, 0, 10, 10], [6.0, 0, 16, 10]]])
    predicted = np.array([[[3.0, 0, 13, 10], [7.0, 0, 17, 10]]])
    iou = box_iou(true, predicted)[0]
    assert match(iou[None]).slot.tolist() == [[0, 1]]
    assert matched_box_iou(true, np.array([2]), predicted, np.ones((1, 2), bool)) == pytest.approx(
        (iou[0, 0] + iou[1, 1]) / 2
    )


def test_matched_iou_is_blind_to_the_order_of_slots_and_objects(rng):
    true, predicted = some_boxes(rng, 30, 3), some_boxes(rng, 30, 4)
    count, present = np.full(30, 3), rng.random((30, 4)) < 0.7
    shuffled, slots = rng.permutation(3), rng.permutation(4)
    np.testing.assert_allclose(
        matched_box_iou(true, count, predicted, present),
        matched_box_iou(true[:, shuffled], count, predicted[:, slots], present[:, slots]),
    )


def test_truth_scores_one_and_a_surplus_or_missing_box_costs(rng):
    true = some_boxes(rng, 10, 3)
    everything, count = np.ones((10, 3), bool), np.full(10, 3)
    np.testing.assert_allclose(matched_box_iou(true, count, true, everything), 1)
    np.testing.assert_allclose(matched_box_iou(true, count - 1, true, everything), 2 / 3)
    np.testing.assert_allclose(matched_box_iou(true, count, true, everything & [True, True, False]), 2 / 3)


def test_an_image_without_boxes_is_skipped_or_one():
    nothing, box, absent = np.array([0]), np.full((1, 2, 4), np.nan), np.zeros((1, 2), bool)
    assert np.isnan(matched_box_iou(box, nothing, box, absent))
    assert matched_box_iou(box, nothing, box, absent, empty="one") == 1
    assert (
        matched_box_iou(np.ones((1, 0, 4)), nothing, np.ones((1, 0, 4)), np.ones((1, 0), bool), empty="one")
        == 1
    )


def test_a_true_box_that_is_unknown_makes_the_image_unscorable():
    true = np.array([[[0.0, 0, 2, 2], [np.nan] * 4]])
    score = matched_box_iou(true, np.array([2]), true, np.array([[True, False]]))
    assert np.isnan(score)


def test_boxes_of_absent_slots_may_be_anything():
    true = np.array([[[0.0, 0, 2, 2]]])
    predicted = np.array([[[0.0, 0, 2, 2], [np.inf, np.nan, -np.inf, 0]]])
    assert matched_box_iou(true, np.array([1]), predicted, np.array([[True, False]])) == 1
    with pytest.raises(ValueError, match="finite corners"):
        matched_box_iou(true, np.array([1]), predicted, np.array([[True, True]]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"true_count": np.array([3])}, r"expected 0\.\.2"),
        ({"true_count": np.array([1, 1])}, "true_count"),
        ({"predicted_present": np.ones((1, 2))}, "predicted_present: expected bool"),
        ({"predicted_boxes": np.ones((1, 2, 5))}, "predicted_boxes: expected shape"),
        ({"empty": "zero"}, "'skip' or 'one'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change, says):
    fitting = {
        "true_boxes": np.ones((1, 2, 4)),
        "true_count": np.array([2]),
        "predicted_boxes": np.ones((1, 2, 4)),
        "predicted_present": np.ones((1, 2), bool),
    }
    with pytest.raises(ValueError, match=says):
        matched_box_iou(**fitting | change)


def test_scores_that_are_not_finite_cannot_be_matched():
    with pytest.raises(ValueError, match="finite"):
        match(np.array([[[np.nan]]]))
