"""Errors of reconstructions, against loops, SciPy's filters and scikit-image."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate

from metrics import (
    mean_squared_error,
    peak_signal_to_noise,
    root_mean_squared_error,
    squared_error,
    structural_similarity,
)


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


def test_roots_are_taken_image_by_image(rng):
    true, guess = rng.random((2, 4, 5, 5, 3))
    np.testing.assert_allclose(root_mean_squared_error(true, guess) ** 2, mean_squared_error(true, guess))
    far = (
        np.concatenate([true[:1], np.zeros((1, 5, 5, 3))]),
        np.concatenate([true[:1], np.ones((1, 5, 5, 3))]),
    )
    assert root_mean_squared_error(*far).tolist() == [0, 1]


def test_decibels_are_those_of_the_error(rng):
    true = rng.integers(0, 256, (3, 6, 6, 1), dtype=np.uint8)
    off = np.clip(true / 255 + rng.normal(0, 0.1, true.shape), 0, 1)
    want = [20 * math.log10(1 / math.sqrt(error)) for error in mean_squared_error(true, off)]
    np.testing.assert_allclose(peak_signal_to_noise(true, off), want)
    one_tenth = np.full((1, 4, 4, 1), 0.1)
    assert peak_signal_to_noise(np.zeros_like(one_tenth), one_tenth) == pytest.approx(20)


@pytest.mark.parametrize("library", [np.asarray, torch.tensor])
def test_equal_images_have_no_finite_decibels(library):
    image, other = np.full((2, 3, 3, 1), 0.5), np.full((2, 3, 3, 1), 0.5)
    other[1] = 0.25
    image, other = library(image), library(other)
    default, endless, capped = (
        peak_signal_to_noise(image, other, **o) for o in ({}, {"identical": math.inf}, {"identical": 100})
    )
    assert math.isnan(default[0])
    assert endless[0] == math.inf
    assert capped[0] == 100
    assert default[1] == endless[1] == capped[1] == pytest.approx(-10 * math.log10(1 / 16))


# structural similarity


def ssim_slowly(x, y, k1=0.01, k2=0.03):
    """Wang et al. 2004, eq. 13, for one channel: weighted moments about the mean at each place of the window."""
    i, j = np.mgrid[-5:6, -5:6]
    w = np.exp(-(i**2 + j**2) / (2 * 1.5**2))
    w /= w.sum()
    places = []
    for r in range(x.shape[0] - 10):
        for c in range(x.shape[1] - 10):
            a, b = x[r : r + 11, c : c + 11], y[r : r + 11, c : c + 11]
            ma, mb = (w * a).sum(), (w * b).sum()
            va, vb, cab = (
                (w * (a - ma) ** 2).sum(),
                (w * (b - mb) ** 2).sum(),
                (w * (a - ma) * (b - mb)).sum(),
            )
            c1, c2 = k1**2, k2**2
            places.append((2 * ma * mb + c1) * (2 * cab + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    return np.mean(places)


@pytest.fixture
def pair(rng):
    true = rng.integers(0, 256, (3, 14, 17, 3), dtype=np.uint8)
    return true, np.clip(true / 255 + rng.normal(0, [[[[0.02]]], [[[0.2]]], [[[0.5]]]], true.shape), 0, 1)


def test_similarity_is_that_of_the_formula_place_by_place(pair):
    true, guess = pair
    want = [
        np.mean([ssim_slowly(t[..., c] / 255, g[..., c]) for c in range(3)])
        for t, g in zip(true, guess, strict=True)
    ]
    np.testing.assert_allclose(structural_similarity(true, guess), want, rtol=1e-10)
    constants = structural_similarity(true[..., :1], guess[..., :1], k1=0.02, k2=0.01)
    assert constants[1] == pytest.approx(ssim_slowly(true[1, ..., 0] / 255, guess[1, ..., 0], 0.02, 0.01))


def test_similarity_is_that_of_scikit_image(pair):
    reference = pytest.importorskip("skimage.metrics").structural_similarity
    how = {"gaussian_weights": True, "use_sample_covariance": False, "data_range": 1, "channel_axis": -1}
    want = [reference(t / 255, g, **how) for t, g in zip(*pair, strict=True)]
    np.testing.assert_allclose(structural_similarity(*pair), want, rtol=1e-9)


def test_the_window_may_be_another(pair):
    true, guess = (image[:1, ..., :1] / (255 if image.dtype == np.uint8 else 1) for image in pair)
    g = np.exp(-0.5 * (np.arange(-2, 3) / 0.8) ** 2)
    kernel = np.outer(g, g) / g.sum() ** 2

    def smooth(image):
        return correlate(image, kernel)[2:-2, 2:-2]

    x, y = true[0, ..., 0], guess[0, ..., 0]
    mx, my = smooth(x), smooth(y)
    top = (2 * mx * my + 1e-4) * (2 * (smooth(x * y) - mx * my) + 9e-4)
    bottom = (mx**2 + my**2 + 1e-4) * (smooth(x * x) - mx**2 + smooth(y * y) - my**2 + 9e-4)
    assert structural_similarity(true, guess, window=5, sigma=0.8) == pytest.approx((top / bottom).mean())


def test_similarity_is_symmetric_bounded_and_one_for_equal_images(pair):
    true, guess = pair
    there, back = structural_similarity(true, guess), structural_similarity(guess, true / 255)
    np.testing.assert_allclose(there, back, rtol=1e-12)
    assert (abs(there) < 1).all()
    assert (np.diff(there) < 0).all()  # more noise, less alike
    np.testing.assert_allclose(structural_similarity(true, true), 1, rtol=1e-12)
    assert structural_similarity(true, 1 - true / 255).max() < 0


def test_similarity_does_not_care_which_axis_is_which(pair):
    turned = [np.swapaxes(image, 1, 2) for image in pair]
    np.testing.assert_allclose(structural_similarity(*turned), structural_similarity(*pair), rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"window": 8}, "odd window"),
        ({"sigma": 0}, "above 0"),
        ({"k1": 0}, "above 0"),
        ({}, "images of 11 x 11 pixels or more, got 12 x 10"),
    ],
)
def test_windows_that_do_not_fit_are_refused(arguments, says):
    image = np.zeros((1, 12, 10, 1))
    with pytest.raises(ValueError, match=says):
        structural_similarity(image, image, **arguments)


def test_values_that_are_not_finite_and_images_without_pixels_are_refused():
    image = np.zeros((1, 2, 2, 1))
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="reconstruction: expected finite values"):
            squared_error(image, np.full_like(image, bad))
        with pytest.raises(ValueError, match="true: expected finite values"):
            squared_error(np.full_like(image, bad), image)
    with pytest.raises(ValueError, match="expected images with pixels"):
        mean_squared_error(image[:, :0], image[:, :0])
