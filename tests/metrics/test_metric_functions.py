"""Laws of the per-image functions, and comparisons with independent references."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix

from metrics import (
    bits_per_dimension,
    box_iou,
    count_absolute_error,
    count_accuracy,
    count_confusion,
    count_error,
    matched_box_iou,
    mean_squared_error,
    negative_log_likelihood,
    squared_error,
)

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


# counting


def test_confusion_is_that_of_scikit_learn(rng):
    true, predicted = rng.integers(0, 4, 200), rng.integers(0, 7, 200)
    table = count_confusion(true, predicted, largest=6)
    np.testing.assert_array_equal(table, confusion_matrix(true, predicted, labels=range(7)))


def test_confusion_is_as_wide_as_the_counts(rng):
    table = count_confusion(np.array([0, 2, 2]), np.array([5, 2, 0]))
    assert table.shape == (3, 6)
    assert table[0, 5] == table[2, 2] == table[2, 0] == 1
    assert table.sum() == 3


def test_confusions_of_batches_add_up(rng):
    true, predicted = rng.integers(0, 5, (2, 40))
    halves = [count_confusion(true[part], predicted[part], largest=4) for part in (slice(20), slice(20, 40))]
    np.testing.assert_array_equal(sum(halves), count_confusion(true, predicted, largest=4))


def test_counting_functions_agree_with_the_confusion(rng):
    true, predicted = rng.integers(0, 5, (2, 300))
    table = count_confusion(true, predicted, largest=4)
    off = np.arange(5) - np.arange(5)[:, None]
    assert count_accuracy(true, predicted).sum() == np.trace(table)
    assert count_error(true, predicted).sum() == (table * off).sum()
    assert count_absolute_error(true, predicted).sum() == (table * abs(off)).sum()


def test_count_errors_of_unsigned_counts_can_be_negative():
    assert count_error(np.array([3], np.uint8), np.array([1], np.uint8)) == -2


@pytest.mark.parametrize(
    ("true", "predicted", "says"),
    [
        (np.array([1.0]), np.array([1]), "expected signed integers or unsigned integers"),
        (np.array([1, 2]), np.array([1]), r"expected shape \[2\], got \[1\]"),
        (np.array([-1]), np.array([1]), "negative"),
        (np.array([1]), np.array([10**12]), "too large"),
        ([1], np.array([1]), "expected an array, got list"),
    ],
)
def test_what_is_no_count_is_refused(true, predicted, says):
    with pytest.raises(ValueError, match=says):
        count_confusion(true, predicted)


# reconstruction


def test_squared_errors_are_those_of_a_loop_over_images(rng):
    true, guess = rng.integers(0, 256, (5, 6, 7, 3), dtype=np.uint8), rng.random((5, 6, 7, 3))
    want = [
        sum((t / 255 - g) ** 2 for t, g in zip(a.flat, b.flat, strict=True))
        for a, b in zip(true, guess, strict=True)
    ]
    np.testing.assert_allclose(squared_error(true, guess), want)
    np.testing.assert_allclose(mean_squared_error(true, guess), np.array(want) / (6 * 7 * 3))


def test_bytes_and_unit_floats_are_the_same_image(rng):
    true, guess = rng.integers(0, 256, (3, 4, 4, 1), dtype=np.uint8), rng.random((3, 4, 4, 1))
    np.testing.assert_allclose(squared_error(true / 255, guess), squared_error(true, guess))
    assert squared_error(true, true).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("true", "says"),
    [
        (np.full((1, 2, 2, 1), 255.0), r"expected floats in \[0, 1\]"),
        (np.ones((1, 2, 2, 1), np.uint16), "expected uint8 or floats"),
        (np.ones((1, 2, 2, 3)), "expected shape"),
    ],
)
def test_images_in_other_units_or_sizes_are_refused(true, says):
    with pytest.raises(ValueError, match=says):
        squared_error(true, np.ones((1, 2, 2, 1)))


# likelihood


def test_uniform_bytes_cost_eight_bits_a_dimension():
    shape = (5, 4, 3)
    nats = -math.prod(shape) * math.log(256)
    assert bits_per_dimension(np.array([nats]), shape) == pytest.approx(8)
    assert negative_log_likelihood(np.array([nats])) == -nats


def test_bits_need_an_image_shape():
    with pytest.raises(ValueError, match=r"expected \(H, W, C\)"):
        bits_per_dimension(np.zeros(1), (5, 4))


# arrays of either library


def calls(rng):
    """Every function with arguments, by name: arrays first, the rest bound."""
    counts = rng.integers(0, 4, (2, 6))
    boxes = [np.concatenate([low := rng.uniform(0, 9, (6, n, 2)), low + 5], -1) for n in (3, 4)]
    present = rng.random((6, 4)) < 0.6
    images = rng.integers(0, 256, (6, 5, 5, 1), dtype=np.uint8), rng.random((6, 5, 5, 1))
    return {
        "count_accuracy": (count_accuracy, counts),
        "count_error": (count_error, counts),
        "count_absolute_error": (count_absolute_error, counts),
        "count_confusion": (count_confusion, counts),
        "box_iou": (box_iou, boxes),
        "matched_box_iou": (matched_box_iou, (boxes[0], counts[0], boxes[1], present)),
        "squared_error": (squared_error, images),
        "mean_squared_error": (mean_squared_error, images),
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
    assert got.dtype == (torch.int64 if name == "count_confusion" else torch.float64)
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
