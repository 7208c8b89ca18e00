import math
import warnings

import numpy as np
import pytest
import torch

from metrics import SuspiciousDataWarning, warn_if_mostly_empty


def silent(truth, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return warn_if_mostly_empty(truth, **options)


def test_label_maps_that_lost_their_objects_warn():
    labels = np.zeros((4, 5, 5), np.uint8)
    labels[0, 2, 2] = 3
    with pytest.warns(SuspiciousDataWarning, match=r"test split: 3 of 4 images \(75%\) hold no object"):
        assert warn_if_mostly_empty(labels, what="test split") == 0.75
    with pytest.warns(SuspiciousDataWarning):
        warn_if_mostly_empty(torch.tensor(labels))


def test_counts_and_label_maps_say_the_same(rng):
    labels = rng.integers(0, 2, (50, 1, 2))
    assert silent(labels, threshold=1) == silent(labels.sum((1, 2)), threshold=1) > 0


def test_background_and_unlabelled_pixels_are_no_objects():
    labels = np.array([[[0, 1, -1]], [[2, 1, 0]]])
    assert silent(labels, background=(0, 1)) == 0.5
    with pytest.warns(SuspiciousDataWarning):
        assert warn_if_mostly_empty(labels, background=(0, 1, 2)) == 1


def test_the_share_must_be_above_the_threshold():
    counts = np.array([0, 1, 2] * 10)  # AIR's set
    assert silent(counts) == pytest.approx(1 / 3)
    with pytest.warns(SuspiciousDataWarning):
        warn_if_mostly_empty(counts, threshold=0.3)
    assert silent(np.array([0, 1]), threshold=0.5) == 0.5
    assert math.isnan(silent(np.array([], int)))


@pytest.mark.parametrize(
    ("truth", "options", "says"),
    [
        (np.zeros(3), {}, "expected whole numbers, got float64"),
        ([0, 1], {}, "got list"),
        (np.array([0]), {"threshold": 2}, "share of 0 to 1"),
        (np.zeros((1, 2, 2), int), {"background": 0}, "background: expected a sequence of whole numbers"),
    ],
)
def test_what_is_no_truth_is_refused(truth, options, says):
    with pytest.raises(ValueError, match=says):
        warn_if_mostly_empty(truth, **options)
