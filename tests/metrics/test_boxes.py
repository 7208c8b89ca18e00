"""Box overlap and matching, against torchvision, pixel sets and all permutations."""

import itertools
import math

import numpy as np
import pytest
import torch

from metrics import (
    box_iou,
    boxes_of_labels,
    boxes_of_masks,
    matched_box_iou,
    mean_best_box_overlap,
    ocl_box_iou,
    supair_box_score,
)
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
    box, line = np.array([[[0.0, 0, 2, 2]]]), np.array([[[1.0, 0, 1, 2]]])
    assert box_iou(box, line) == 0
    assert np.isnan(box_iou(line, line))


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
    for bad in (predicted, np.array([[[0.0, 0, 2, 2], [np.nan] * 4]])):
        with pytest.raises(ValueError, match="finite corners"):
            matched_box_iou(true, np.array([1]), bad, np.array([[True, True]]))


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


def test_swapped_and_infinite_corners_are_refused():
    box, swapped, endless = ([[[0.0, 0, 2, 2]]], [[[2.0, 2, 1, 3]]], [[[0.0, 0, np.inf, 2]]])
    box, swapped, endless = map(np.array, (box, swapped, endless))
    one, on = np.array([1]), np.ones((1, 1), bool)
    scores = (matched_box_iou, ocl_box_iou, mean_best_box_overlap, supair_box_score)
    for bad, says in (
        (swapped, "x0 <= x1 and y0 <= y1, got .2.0, 2.0, 1.0, 3.0."),
        (endless, "finite corners"),
    ):
        for pair in ((bad, box), (box, bad)):
            with pytest.raises(ValueError, match=says):
                box_iou(*pair)
        for score in scores:
            with pytest.raises(ValueError, match=says):
                score(bad, one, box, on)
            with pytest.raises(ValueError, match=says):
                score(box, one, bad, on)
            score(bad, one - 1, bad, ~on)  # absent boxes may be anything


def test_a_true_box_without_area_makes_the_image_unscorable():
    line, one, on = np.array([[[1.0, 0, 1, 2]]]), np.array([1]), np.ones((1, 1), bool)
    for score in (matched_box_iou, ocl_box_iou, mean_best_box_overlap):
        assert np.isnan(score(line, one, line, on))
    assert supair_box_score(line, one, line, on).weight == 0


# other projects' scores


@pytest.fixture
def crowd(rng):
    """120 images of up to 4 true and up to 5 predicted boxes, close enough to contend."""
    count, present = rng.integers(0, 5, 120), rng.random((120, 5)) < 0.6
    return some_boxes(rng, 120, 4, size=12), count, some_boxes(rng, 120, 5, size=12), present


def each(true, count, predicted, present):
    return [(t[:n], p[on]) for t, n, p, on in zip(true, count, predicted, present, strict=True)]


def test_ocl_takes_the_mean_over_true_boxes(crowd):
    want = [
        math.nan if not len(t) else np.nan_to_num(brute_force(t, p)) * max(len(t), len(p)) / len(t)
        for t, p in each(*crowd)
    ]
    np.testing.assert_allclose(ocl_box_iou(*crowd), want, atol=1e-12)
    assert np.isnan(want).any()


def test_the_best_overlap_may_repeat(crowd):
    want = [
        np.mean([max([iou(a, b) for b in p], default=0) for a in t]) if len(t) else math.nan
        for t, p in each(*crowd)
    ]
    np.testing.assert_allclose(mean_best_box_overlap(*crowd), want, atol=1e-12)


def iou(a, b, more=0.0):
    """Intersection over union of two boxes with ``more`` pixels on every side length."""
    sides = [max(0, min(a[i + 2], b[i + 2]) - max(a[i], b[i]) + more) for i in (0, 1)]
    area = [(c[2] - c[0] + more) * (c[3] - c[1] + more) for c in (a, b)]
    return sides[0] * sides[1] / (sum(area) - sides[0] * sides[1])


def test_scores_are_ordered_as_their_rules_say(crowd):
    with np.errstate(invalid="ignore"):
        asr, ocl, best = (score(*crowd) for score in (matched_box_iou, ocl_box_iou, mean_best_box_overlap))
        greedy = supair_box_score(*crowd, widen=0, inclusive=0).score
        some = crowd[1] > 0
        assert (asr[some] <= ocl[some] + 1e-12).all()
        assert (ocl[some] <= best[some] + 1e-12).all()
        assert (greedy[some] <= ocl[some] + 1e-12).all()
    assert (asr < ocl - 0.01).any()
    assert (ocl < best - 0.01).any()
    assert (greedy < ocl - 0.01).any()


@pytest.mark.parametrize(("widen", "inclusive"), [(5.0, 1.0), (0.0, 0.0), (0.0, 1.0)])
def test_supair_is_greedy_in_the_order_of_slots(crowd, widen, inclusive):
    total = boxes = 0.0
    score, weight = supair_box_score(*crowd, widen=widen, inclusive=inclusive)
    for (true, predicted), s, w in zip(each(*crowd), score, weight, strict=True):
        left, own = [list(box) for box in true], 0.0
        for x0, y0, x1, y1 in predicted[: len(true)]:
            wide = x0 - widen, y0 - widen, x1 + widen, y1 + widen
            best = max(left, key=lambda box: iou(box, wide, inclusive))
            own += iou(best, wide, inclusive)
            left.remove(best)
        total, boxes = total + own, boxes + len(true)
        assert w == len(true)
        assert s == pytest.approx(own / len(true), abs=1e-12) if len(true) else math.isnan(s)
    assert supair_box_score(*crowd, widen=widen, inclusive=inclusive).micro_average() == pytest.approx(
        total / boxes
    )


def test_surplus_boxes_are_free_for_supair_and_not_for_asr():
    true = np.array([[[0.0, 0, 4, 4], [10, 10, 14, 14]]])
    three, on = np.concatenate([true, [[[20.0, 20, 24, 24]]]], 1), np.ones((1, 3), bool)
    two = np.array([2])
    assert supair_box_score(true, two, three, on, widen=0).score == 1
    assert ocl_box_iou(true, two, three, on) == 1
    assert matched_box_iou(true, two, three, on) == pytest.approx(2 / 3)
    first = supair_box_score(true, two, three[:, ::-1], on, widen=0).score
    assert first == pytest.approx(1 / 2)  # the surplus one comes first and the last true one is never reached


def test_supair_reads_corners_as_inclusive_and_widens():
    true, on = np.array([[[10.0, 10, 19, 19]]]), np.ones((1, 1), bool)  # 10 pixels wide, if inclusive
    wide = supair_box_score(true, np.array([1]), true, on)
    assert wide.score == pytest.approx(10**2 / 20**2)
    assert supair_box_score(true, np.array([1]), true, on, inclusive=0).score == pytest.approx(9**2 / 19**2)


def test_supair_says_nothing_of_nothing():
    none, box = np.array([0]), np.zeros((1, 2, 4))
    result = supair_box_score(box, none, box, np.ones((1, 2), bool))
    assert np.isnan(result.score)
    assert math.isnan(result.micro_average())
    empty = supair_box_score(np.zeros((1, 0, 4)), none, box, np.ones((1, 2), bool))
    assert (empty.weight, np.isnan(empty.score)) == (0, True)
    with pytest.raises(ValueError, match="finite pixels of 0 or more"):
        supair_box_score(box, none, box, np.ones((1, 2), bool), widen=-1)


# boxes of masks


def test_boxes_of_masks_hold_every_pixel_and_no_empty_line(rng):
    masks = rng.random((40, 3, 6, 8)) < 0.06
    for mask, box in zip(masks.reshape(-1, 6, 8), boxes_of_masks(masks).reshape(-1, 4), strict=True):
        rows, columns = np.nonzero(mask)
        if len(rows):
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        else:
            assert np.isnan(box).all()
    assert not masks.any((2, 3)).all()


def test_a_box_of_one_pixel_has_area_one():
    masks = np.zeros((1, 1, 4, 5), bool)
    masks[0, 0, 3, 4] = True
    assert boxes_of_masks(masks).tolist() == [[[4, 3, 5, 4]]]
    assert box_iou(boxes_of_masks(masks), boxes_of_masks(masks)) == 1


def test_boxes_of_labels_are_those_of_their_masks(rng):
    labels = rng.integers(-1, 5, (30, 5, 4), dtype=np.int16)
    masks = np.stack([labels == k for k in (1, 3, 4)], 1)
    np.testing.assert_array_equal(boxes_of_labels(labels, background=(0, 2)), boxes_of_masks(masks))
    wider = boxes_of_labels(labels, background=(0, 2), num_labels=6)
    assert wider.shape == (30, 4, 4)
    assert np.isnan(wider[:, 3]).all()


def test_boxes_of_labels_score_one_against_themselves(scenes):
    boxes = boxes_of_labels(scenes.segments, num_labels=4)
    seen = ~np.isnan(boxes).any(-1)
    rows = np.arange(len(boxes))[(seen.sum(1) == scenes.count) & (scenes.count > 0)]
    assert len(rows) > 5
    np.testing.assert_allclose(matched_box_iou(boxes[rows], scenes.count[rows], boxes[rows], seen[rows]), 1)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: boxes_of_masks(np.ones((1, 2, 2))), "expected shape"),
        (lambda: boxes_of_masks(np.ones((1, 1, 2, 2))), "masks: expected bool"),
        (lambda: boxes_of_masks(np.ones((1, 1, 0, 2), bool)), "expected pixels"),
        (lambda: boxes_of_labels(np.ones((1, 2, 2))), "labels: expected signed integers"),
        (lambda: boxes_of_labels(np.full((1, 2, 2), 7), num_labels=3), "labels below 3, got 7"),
        (lambda: boxes_of_labels(np.full((1, 2, 2), 10**12)), "number each image's labels anew"),
        (
            lambda: boxes_of_labels(np.full((1, 2, 2), 7), background=0),
            "background: expected a sequence of whole",
        ),
        (
            lambda: boxes_of_labels(np.full((1, 2, 2), 7), num_labels=8.5),
            "num_labels: expected a whole number",
        ),
        (
            lambda: boxes_of_masks(np.ma.masked_all((1, 1, 2, 2), bool)),
            "masks: expected a plain array, got a mask",
        ),
    ],
)
def test_what_is_no_segmentation_has_no_boxes(call, says):
    with pytest.raises(ValueError, match=says):
        call()
