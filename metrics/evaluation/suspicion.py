"""Signs that data were read wrongly, which figures alone would hide."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from metrics.libraries import is_finite, whole_numbers
from multiobj_data.arrays import Array, to_numpy
from multiobj_data.scenes import dtype_kind


class SuspiciousDataWarning(UserWarning):
    """The data look as if something went wrong while they were read; figures may mean nothing."""


def warn_if_mostly_empty(
    truth: Array,
    *,
    background: Sequence[int] = (0,),
    threshold: float = 0.5,
    what: str = "the data",
) -> float:
    """Warn if more than ``threshold`` of the images hold no object; return their share.

    Label maps that were read on another scale (as floats in [0, 1], cut to 0) leave nothing but background: then
    some projects score 1 for every image, and here every image is skipped. A set such as AIR's, a third of whose
    images are empty on purpose, does not warn by default.

    Args:
        truth: True counts ``[B]``, or label maps ``[B, ...]`` (any further sizes), whole numbers.
        background: Labels that are no objects; negative labels never are. Only for label maps.
        threshold: Share of empty images, 0 to 1, above which to warn.
        what: What the message calls the data.

    Returns:
        The share of images without an object; NaN without images.

    Raises:
        ValueError: If ``truth`` are no whole numbers, or ``threshold`` is no share.
    """
    if not hasattr(truth, "shape") or not hasattr(truth, "dtype") or len(truth.shape) < 1:
        raise ValueError(f"truth: expected counts [B] or label maps [B, ...], got {type(truth).__name__}.")
    if dtype_kind(truth) not in "iu":
        raise ValueError(f"truth: expected whole numbers, got {truth.dtype}.")
    if not (is_finite(threshold) and 0 <= threshold <= 1):
        raise ValueError(f"threshold: expected a share of 0 to 1, got {threshold!r}.")
    labels = whole_numbers("background", background)
    values = to_numpy(truth)
    n = len(values)
    if not n:
        return float("nan")
    if values.ndim > 1:
        pixels = values.reshape(n, -1)
        empty = int((np.isin(pixels, labels) | (pixels < 0)).all(1).sum())
    else:
        empty = int((values <= 0).sum())
    if empty > threshold * n:
        warnings.warn(
            f"{what}: {empty} of {n} images ({empty / n:.0%}) hold no object, so that most scores cannot be said or "
            "mean little; if that is not meant, check how label maps and counts were read.",
            SuspiciousDataWarning,
            stacklevel=2,
        )
    return empty / n
