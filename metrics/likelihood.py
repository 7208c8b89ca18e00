"""Likelihood: nats, bits per dimension, what is left above the floor, and importance-weighted bounds.

A figure is only comparable with its kind (exact, ELBO, IWAE with k samples), which `Prediction` therefore
requires and every report repeats; `metrics.comparability` says which kinds may stand in one column.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from metrics.libraries import is_finite, is_whole, library_of
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
    return negative_log_likelihood(log_likelihood) / (_dimensions(image_shape) * math.log(2))


def gaussian_floor(image_shape: Sequence[int], sd: float, *, normalised: bool = True) -> float:
    """Return the least negative log likelihood, in nats an image, that pixels ``N(mean, sd^2)`` can reach.

    ``H W C (ln sd + ln(2 pi) / 2)``, reached by a perfect reconstruction. A mixture of Gaussians of one ``sd`` has
    the same floor. With the sd of 0.7 of GENESIS and SRI it is 0.5623 nats or 0.8112 bits a dimension, most of what
    their tables list.

    Args:
        image_shape: ``(H, W, C)`` of the images.
        sd: Standard deviation of a pixel, above 0, in units of the pixels (usually [0, 1]).
        normalised: Whether the model counts the constant ``ln(2 pi) / 2``, which EfficientMORL drops.

    Raises:
        ValueError: If ``image_shape`` is not three sizes of 1 or more, or ``sd`` is not above 0.
    """
    if not (is_finite(sd) and sd > 0):
        raise ValueError(f"sd: expected a finite standard deviation above 0, got {sd!r}.")
    return _dimensions(image_shape) * (math.log(sd) + (0.5 * math.log(2 * math.pi) if normalised else 0.0))


def floor_corrected(
    log_likelihood: Array, image_shape: Sequence[int], sd: float, *, normalised: bool = True
) -> Array:
    """Return what a Gaussian model's negative log likelihood (or nELBO) exceeds its `gaussian_floor` by.

    It removes the constant that hides differences between models: 0 for a perfect reconstruction without any KL. In
    bits a dimension it is ``bits_per_dimension(-floor_corrected(...), image_shape)``.

    Args:
        log_likelihood: Floats ``[B]`` in nats an image.
        image_shape: As in `gaussian_floor`.
        sd: As there.
        normalised: As there.

    Returns:
        float64 ``[B]`` in nats, 0 or more; in the library and on the device of ``log_likelihood``.

    Raises:
        ValueError: As `gaussian_floor`, or if a value lies below the floor, so that ``sd`` or ``normalised`` is
            not the model's.
    """
    floor = gaussian_floor(image_shape, sd, normalised=normalised)
    above = negative_log_likelihood(log_likelihood) - floor
    slack = 1e-5 * max(abs(floor), 1.0)  # what sums in single precision leave
    if bool((above < -slack).any()):
        raise ValueError(
            f"log_likelihood: expected {-floor:.6g} nats an image or less, the most that a Gaussian of sd {sd} "
            f"{'with' if normalised else 'without'} its constant reaches, got {float(log_likelihood.max()):.6g}; "
            "check sd and normalised."
        )
    return library_of(above).where(above < 0, 0.0, above)


def importance_weighted_bound(log_weights: Array) -> Array:
    """Return IWAE's bound ``log (1/k) sum_i w_i`` (Burda et al., ICLR 2016, eq. 8); the ELBO's estimate for k = 1.

    It rises with k towards the log likelihood, so that only bounds of equal k compare: its kind is ``"iwae-k"``.

    Args:
        log_weights: Floats ``[B, k]``: ``log p(x, z_i) - log q(z_i | x)`` of k samples, in nats; ``-inf`` for a
            sample of no weight.

    Returns:
        float64 ``[B]``; NaN where a weight is NaN. In the library and on the device of ``log_weights``.

    Raises:
        ValueError: If there is no sample, or a weight is infinite.
    """
    expect("log_weights", log_weights, (None, None), "f")
    samples = log_weights.shape[1]
    if not samples:
        raise ValueError("log_weights: expected one sample or more an image, got none.")
    weights = as_double(log_weights, log_weights)
    if bool((weights == math.inf).any()):
        raise ValueError("log_weights: expected finite values or -inf, got +inf.")
    library = library_of(weights)
    largest = library.amax(weights, 1)  # [B]
    shift = library.where(largest == -math.inf, 0.0, largest)
    total = library.exp(weights - shift[:, None]).sum(1)  # [B], at least 1 unless no sample has any weight
    nothing = total == 0
    return library.where(
        nothing, -math.inf, library.log(library.where(nothing, 1.0, total)) + shift - math.log(samples)
    )


def _dimensions(image_shape: Sequence[int]) -> int:
    sizes = tuple(image_shape) if isinstance(image_shape, Iterable) else ()
    if len(sizes) != 3 or not all(is_whole(size, 1) for size in sizes):
        raise ValueError(f"image_shape: expected (H, W, C), got {image_shape!r}.")
    return math.prod(int(size) for size in sizes)
