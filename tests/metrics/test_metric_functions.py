"""What all per-image functions have in common: arrays of either library in, the same library out."""

import numpy as np
import pytest
import torch

from metrics import (
    average_precision,
    bits_per_dimension,
    box_iou,
    boxes_of_labels,
    boxes_of_masks,
    count_absolute_error,
    count_accuracy,
    count_accuracy_by_count,
    count_confusion,
    count_error,
    floor_corrected,
    importance_weighted_bound,
    inferred_count,
    matched_box_iou,
    mean_best_box_overlap,
    mean_squared_error,
    most_probable_count,
    negative_log_likelihood,
    ocl_box_iou,
    peak_signal_to_noise,
    root_mean_squared_error,
    squared_error,
    structural_similarity,
    supair_box_score,
)

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

WHOLE = ("count_confusion", "inferred_count", "most_probable_count")


def calls(rng):
    """Every function with arguments, by name: arrays first, the rest bound."""
    counts = rng.integers(0, 4, (2, 6))
    boxes = [np.concatenate([low := rng.uniform(0, 9, (6, n, 2)), low + 5], -1) for n in (3, 4)]
    present = rng.random((6, 4)) < 0.6
    sides = boxes[0], counts[0], boxes[1], present
    images = rng.integers(0, 256, (6, 13, 12, 2), dtype=np.uint8), rng.random((6, 13, 12, 2))
    chances = rng.random((6, 4))
    return {
        "count_accuracy": (count_accuracy, counts),
        "count_error": (count_error, counts),
        "count_absolute_error": (count_absolute_error, counts),
        "count_confusion": (count_confusion, counts),
        "box_iou": (box_iou, boxes),
        "matched_box_iou": (matched_box_iou, sides),
        "ocl_box_iou": (ocl_box_iou, sides),
        "mean_best_box_overlap": (mean_best_box_overlap, sides),
        "supair_box_score": (lambda *arrays: supair_box_score(*arrays).score, sides),
        "supair_box_weight": (lambda *arrays: supair_box_score(*arrays).weight, sides),
        "average_precision": (average_precision, (*sides[:3], chances)),
        "boxes_of_masks": (boxes_of_masks, (rng.random((6, 3, 4, 5)) < 0.2,)),
        "boxes_of_labels": (boxes_of_labels, (rng.integers(-1, 4, (6, 4, 5)),)),
        "count_accuracy_by_count": (count_accuracy_by_count, counts),
        "most_probable_count": (most_probable_count, (chances / chances.sum(1, keepdims=True),)),
        **{
            f"inferred_count {rule}": (lambda p, rule=rule: inferred_count(p, rule), (chances,))
            for rule in ("threshold", "rounded", "cumulative", "mode")
        },
        "inferred_count sample": (
            lambda p: inferred_count(p, "sample", rng=np.random.default_rng(1)),
            (chances,),
        ),
        "squared_error": (squared_error, images),
        "mean_squared_error": (mean_squared_error, images),
        "root_mean_squared_error": (root_mean_squared_error, images),
        "peak_signal_to_noise": (peak_signal_to_noise, images),
        "structural_similarity": (structural_similarity, images),
        "importance_weighted_bound": (importance_weighted_bound, (rng.normal(size=(6, 3)),)),
        "floor_corrected": (lambda ll: floor_corrected(ll, (5, 5, 1), 0.7), (rng.normal(-30, 1, 6),)),
        "negative_log_likelihood": (negative_log_likelihood, (rng.normal(size=6),)),
        "bits_per_dimension": (lambda ll: bits_per_dimension(ll, (5, 5, 1)), (rng.normal(size=6),)),
    }


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
@pytest.mark.parametrize("name", calls(np.random.default_rng(0)))
def test_tensors_are_answered_with_tensors_of_equal_values(rng, name, device):
    function, arrays = calls(rng)[name]
    want = function(*arrays)
    got = function(*(torch.tensor(array, device=device) for array in arrays))
    assert isinstance(want, np.ndarray)
    assert isinstance(got, torch.Tensor)
    assert got.device.type == device
    assert got.dtype == (torch.int64 if name.startswith(WHOLE) else torch.float64)
    np.testing.assert_allclose(got.cpu().numpy(), want, rtol=1e-13)


def test_the_answer_follows_the_prediction(rng):
    true = rng.integers(0, 256, (2, 4, 4, 1), dtype=np.uint8)
    guess = torch.rand(2, 4, 4, 1, generator=torch.Generator().manual_seed(0), requires_grad=True)
    score = squared_error(true, guess)
    assert isinstance(score, torch.Tensor)
    assert not score.requires_grad
    assert isinstance(squared_error(torch.tensor(true), guess.detach().numpy()), np.ndarray)


def test_half_precision_tensors_are_scored_in_double():
    boxes = torch.tensor([[[0.0, 0, 2, 2]]])
    one = torch.tensor([1])
    present = torch.ones(1, 1, dtype=torch.bool)
    assert matched_box_iou(boxes, one, boxes.bfloat16(), present).item() == 1


BOX, ONE, ON = np.array([[[0.0, 0, 2, 2]]]), np.array([1]), np.ones((1, 1), bool)
PICTURE = np.zeros((1, 12, 12, 1))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: supair_box_score(BOX, ONE, BOX, ON, widen="5"), "finite pixels of 0 or more, got '5'"),
        (lambda: structural_similarity(PICTURE, PICTURE, window=11.0), "an odd window .* got 11.0"),
        (lambda: structural_similarity(PICTURE, PICTURE, sigma=True), "above 0, got 11, True"),
        (lambda: average_precision(BOX, ONE, BOX, BOX[..., 0], thresholds=0.5), "a list of IoUs, got 0.5"),
        (lambda: average_precision(BOX, ONE, BOX, BOX[..., 0], most="all"), "1 or more, got 'all'"),
        (lambda: floor_corrected(np.zeros(1), (2, 2, 1), "0.7"), "above 0, got '0.7'"),
        (lambda: bits_per_dimension(np.zeros(1), 12), r"expected \(H, W, C\), got 12"),
        (lambda: bits_per_dimension(np.zeros(1), "abc"), r"expected \(H, W, C\), got 'abc'"),
        (lambda: inferred_count(BOX[0] / 2, threshold=None), "finite number, got None"),
        (lambda: inferred_count(BOX[0] / 2, "sample", rng=7), "Generator for rule 'sample', got int"),
    ],
)
def test_numbers_that_are_none_are_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
