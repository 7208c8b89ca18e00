"""Likelihood: nats and bits per dimension.

A figure is only comparable with its kind (exact, ELBO, IWAE with k samples), which `Prediction` therefore
requires and every report repeats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from multiobj_data.arrays import Array, as_double
from multiobj_data.scenes import expect


def negative_log_likelihood(log_likelihood: Array) -> Array:
    """Return minus the log likelihood in nats, float64 ``[B]``; of an ELBO, what tables list as nELBO."""
    expect("log_likelihood", log_likelihood, (None,), "f")
    return -as_double(log_likelihood, log_likelihood)


def bits_per_dimension(log_likelihood: Array, image_shape: Sequence[int]) -> Array:
    """Return ``-log_likelihood / (H W C ln 2)``.

    For a density over pixels in [0, 1], as GENESIS-v2 and SRI have it, this is the continuous figure; the
    bits of a model of the 256 grey levels are larger by ``log2(256) = 8``.

    Args:
        log_likelihood: Floats ``[B]`` in nats an image.
        image_shape: ``(H, W, C)`` of the images.

    Returns:
        float64 ``[B]``, in the library and on the device of ``log_likelihood``.

    Raises:
        ValueError: If ``image_shape`` is not three sizes of 1 or more.
    """
    sizes = tuple(int(size) for size in image_shape)
    if len(sizes) != 3 or min(sizes) < 1:
        raise ValueError(f"image_shape: expected (H, W, C), got {tuple(image_shape)}.")
    return negative_log_likelihood(log_likelihood) / (math.prod(sizes) * math.log(2))
