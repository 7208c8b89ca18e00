"""Reconstruction: how far a model's image is from the one that it was shown."""

from __future__ import annotations

import math

import numpy as np

from metrics.libraries import is_finite, is_whole, library_of
from multiobj_data.arrays import Array, as_double, like
from multiobj_data.scenes import dtype_kind, expect

_TOLERANCE = 1e-3  # of values in [0, 1]: what resizing and half precision leave

SSIM_WINDOW = 11
"""Sides of the default window of `structural_similarity` in pixels; smaller images have no SSIM."""


def squared_error(true: Array, reconstruction: Array) -> Array:
    """Return the squared error *summed* over pixels and channels: the SE of AIR-ASR.

    Source: Xu et al., NeurIPS 2019, table 1; pixels in [0, 1].

    Args:
        true: Images ``[B, H, W, C]``: uint8, which is divided by 255, or floats in [0, 1].
        reconstruction: The same shape, uint8 or floats in [0, 1].

    Returns:
        float64 ``[B]``, in the library and on the device of ``reconstruction``.

    Raises:
        ValueError: If shapes disagree, an image is neither uint8 nor floats, ``true`` leaves [0, 1], or
            ``reconstruction`` is not finite.
    """
    return _squares(true, reconstruction).sum((1, 2, 3))


def mean_squared_error(true: Array, reconstruction: Array) -> Array:
    """Return the squared error *averaged* over pixels and channels, as EfficientMORL and SRI report it.

    Some evaluators call the sum "MSE"; that is `squared_error` here, whose arguments and errors are the same.
    """
    return _squares(true, reconstruction).mean((1, 2, 3))


def root_mean_squared_error(true: Array, reconstruction: Array) -> Array:
    """Return the root of each image's `mean_squared_error`, so that a mean is over roots, as GENESIS has it.

    The root of the mean MSE over a set, which others report, is larger.
    """
    return mean_squared_error(true, reconstruction) ** 0.5


def peak_signal_to_noise(true: Array, reconstruction: Array, *, identical: float = math.nan) -> Array:
    """Return the PSNR in decibels, ``-10 log10(MSE)`` for pixels in [0, 1].

    Arguments and errors are those of `squared_error`, and:

    Args:
        true: As there.
        reconstruction: As there.
        identical: What equal images score. Their PSNR is infinite, which no mean can hold, so they are
            skipped and counted by default; a mean over the others is then too low, by as much as images were
            skipped. With ``math.inf``, or a cap such as 100, none are.

    Returns:
        float64 ``[B]``, in the library and on the device of ``reconstruction``.
    """
    error = mean_squared_error(true, reconstruction)  # [B]
    library = library_of(error)
    equal = error == 0
    decibels = -10 * library.log10(library.where(equal, 1.0, error))
    return library.where(equal, float(identical), decibels)


def structural_similarity(
    true: Array,
    reconstruction: Array,
    *,
    window: int = SSIM_WINDOW,
    sigma: float = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
) -> Array:
    """Return the mean SSIM of Wang et al. ("Image quality assessment", IEEE TIP 2004, eq. 13).

    Local means, variances and the covariance are those of a Gaussian window at every place where it lies
    within the image; the index is averaged over places and channels. Constants are the paper's.

    Differs from the paper: colour is compared channel by channel instead of as luminance.

    Args:
        true: As in `squared_error`.
        reconstruction: As in `squared_error`.
        window: Odd side of the window in pixels.
        sigma: Standard deviation of the window in pixels.
        k1: Constant that steadies the comparison of luminance.
        k2: Constant that steadies the comparison of contrast and structure.

    Returns:
        float64 ``[B]`` in [-1, 1], 1 for equal images; in the library and on the device of
        ``reconstruction``.

    Raises:
        ValueError: As in `squared_error`, or if an image is smaller than the window or a constant is unusable.
    """
    if not is_whole(window, 1) or window % 2 == 0 or not all(is_finite(c) and c > 0 for c in (sigma, k1, k2)):
        raise ValueError(
            "structural_similarity: expected an odd window and sigma, k1 and k2 above 0, "
            f"got {window!r}, {sigma!r}, {k1!r}, {k2!r}."
        )
    library = library_of(reconstruction)
    x, y = (
        library.stack(
            [image[..., c] for c in range(image.shape[3])], 1
        )  # [B, C, H, W], contiguous for the products
        for image in _pair(true, reconstruction)
    )
    height, width = x.shape[2:]
    if min(height, width) < window:
        raise ValueError(
            f"structural_similarity: expected images of {window} x {window} pixels or more, got {height} x {width}."
        )
    along, across = (like(_sliding(size, window, sigma), y) for size in (height, width))

    def smooth(values: Array) -> Array:
        return along @ (values @ across.T)  # [B, C, H - window + 1, W - window + 1]

    mean_x, mean_y = smooth(x), smooth(y)
    c1, c2 = k1**2, k2**2  # pixels range over [0, 1]
    covariance = smooth(x * y) - mean_x * mean_y
    variances = smooth(x * x) - mean_x**2 + smooth(y * y) - mean_y**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (luminance * (2 * covariance + c2) / (variances + c2)).mean((1, 2, 3))


def _sliding(size: int, window: int, sigma: float) -> np.ndarray:
    """Return the Gaussian window at every place along an axis, as a matrix ``[size - window + 1, size]``."""
    weights = np.exp(-0.5 * ((np.arange(window) - window // 2) / sigma) ** 2)
    rows = np.zeros((size - window + 1, size))
    for place, row in enumerate(rows):
        row[place : place + window] = weights / weights.sum()
    return rows


def _squares(true: Array, reconstruction: Array) -> Array:
    x, y = _pair(true, reconstruction)
    return (y - x) ** 2  # [B, H, W, C]


def _pair(true: Array, reconstruction: Array) -> tuple[Array, Array]:
    """Return both as float64 in [0, 1] where ``reconstruction`` is."""
    expect("true", true, (None, None, None, None), "uf")
    expect("reconstruction", reconstruction, tuple(true.shape), "uf")
    if not math.prod(true.shape[1:]):
        raise ValueError(f"true: expected images with pixels, got {list(true.shape[1:])} (H, W, C).")
    return _unit("true", true, reconstruction), _unit("reconstruction", reconstruction, reconstruction)


def _unit(name: str, images: Array, reference: Array) -> Array:
    """Return images as float64 in [0, 1]; a float truth out of that range was scaled by another rule."""
    values = as_double(images, reference)
    if dtype_kind(images) == "u":
        if not str(images.dtype).endswith("uint8"):
            raise ValueError(f"{name}: expected uint8 or floats in [0, 1], got {images.dtype}.")
        return values / 255
    if not math.prod(values.shape):
        return values
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{name}: expected finite values, got NaN or infinity.")
    if name == "true" and (low < -_TOLERANCE or high > 1 + _TOLERANCE):
        raise ValueError(f"true: expected floats in [0, 1], got {low:.4g}..{high:.4g}.")
    return values
