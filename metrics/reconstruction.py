"""Reconstruction: how far a model's image is from the one that it was shown."""

from __future__ import annotations

from multiobj_data.arrays import Array, as_double
from multiobj_data.scenes import dtype_kind, expect


def squared_error(true: Array, reconstruction: Array) -> Array:
    """Return the squared error *summed* over pixels and channels: the SE of AIR-ASR.

    Source: Xu et al., NeurIPS 2019, table 1; pixels in [0, 1].

    Args:
        true: Images ``[B, H, W, C]``: uint8, which is divided by 255, or floats in [0, 1].
        reconstruction: The same shape, uint8 or floats in [0, 1].

    Returns:
        float64 ``[B]``, in the library and on the device of ``reconstruction``.

    Raises:
        ValueError: If shapes disagree, or ``true`` is neither uint8 nor floats in [0, 1].
    """
    return _squares(true, reconstruction).sum((1, 2, 3))


def mean_squared_error(true: Array, reconstruction: Array) -> Array:
    """Return the squared error *averaged* over pixels and channels, as EfficientMORL and SRI report it.

    Some evaluators call the sum "MSE"; that is `squared_error` here, whose arguments and errors are the same.
    """
    return _squares(true, reconstruction).mean((1, 2, 3))


def _squares(true: Array, reconstruction: Array) -> Array:
    expect("true", true, (None, None, None, None), "uf")
    expect("reconstruction", reconstruction, tuple(true.shape), "uf")
    difference = _unit("reconstruction", reconstruction, reconstruction) - _unit("true", true, reconstruction)
    return difference**2  # [B, H, W, C]


def _unit(name: str, images: Array, reference: Array) -> Array:
    """Return images as float64 in [0, 1]; a float truth out of that range was scaled by another rule."""
    values = as_double(images, reference)
    if dtype_kind(images) == "u":
        if not str(images.dtype).endswith("uint8"):
            raise ValueError(f"{name}: expected uint8 or floats in [0, 1], got {images.dtype}.")
        return values / 255
    if name == "true" and len(values) and (values.min() < 0 or values.max() > 1):
        raise ValueError(f"true: expected floats in [0, 1], got {values.min():.4g}..{values.max():.4g}.")
    return values
