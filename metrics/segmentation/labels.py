"""Label maps: what a segmentation must look like before it is scored, and how masks become one.

A label map holds one whole number a pixel, ``[B, H, W]`` (or ``[B, T, H, W]``, one score a video, or any longer
shape). Masks, one-hot or soft, are turned into one explicitly, because each way of doing it is another rule: an
`argmax` of masks that are 0 and 255, or of masks that overlap, scores without complaint and means nothing.
"""

from __future__ import annotations

import sys
from typing import Any, Literal

import numpy as np

from metrics.libraries import is_finite, is_whole, library_of
from multiobj_data.arrays import Array, is_tensor, like, to_numpy
from multiobj_data.scenes import dtype_kind

UNSCORED = -1
"""The label of a pixel that no metric looks at (in a true map), or that no slot claims (in a predicted one)."""

_TOLERANCE = 1e-3  # of soft masks and their sums: what half precision leaves; `Prediction` allows the same
_TOLERANCE_BFLOAT16 = 1e-2  # which has eight bits
_CACHE = 2**14  # pixels that are worked on together
_LIMIT = 2**53  # labels beyond it are not whole numbers in float64
_NARROW = ("torch.uint16", "torch.uint32", "torch.uint64")  # torch can store these, but not compare them


def label_maps(labels: Array, *, num_labels: int | None = None, name: str = "labels") -> Array:
    """Return label maps as they are, once they have been found to be label maps.

    Args:
        labels: Whole numbers or bool ``[B, H, W]``, or longer; negative: not scored (see `UNSCORED`).
        num_labels: Declared number of labels; one of ``num_labels`` or more is refused.
        name: How messages call them.

    Raises:
        ValueError: If these are no label maps: rank, dtype, no image or no pixel, a label above the declared
            number, or what looks like one-hot masks.
    """
    checked(name, labels, num_labels)
    return labels


def checked(name: str, labels: Array, num_labels: int | None = None) -> tuple[int, int]:
    """Return the smallest and the largest label of what has been found to be label maps."""
    check_form(name, labels)
    if num_labels is not None and not is_whole(num_labels, 1):
        raise ValueError(f"num_labels: expected a whole number of 1 or more, got {num_labels!r}.")
    smallest, largest = _range(labels)
    if largest >= _LIMIT or smallest <= -_LIMIT:
        raise ValueError(f"{name}: expected labels below 2**53, got {max(largest, -smallest)}.")
    if num_labels is not None and largest >= num_labels:
        raise ValueError(
            f"{name}: expected labels below the declared number of {num_labels}, got {largest}; "
            "declare more, or look where it comes from."
        )
    if len(labels.shape) > 3 and labels.shape[1] > 1 and smallest == 0 and largest == 1 and _one_hot(labels):
        raise ValueError(
            f"{name}: expected label maps, got what looks like one-hot masks {list(labels.shape)} (0 and 1, summing "
            "to 1 along axis 1); turn them into label maps by metrics.labels_of_one_hot."
        )
    return smallest, largest


def labels_of_one_hot(
    masks: Array, axis: int = 1, *, uncovered: Literal["refuse", "unscored"] = "refuse"
) -> Array:
    """Turn exclusive masks of 0 and 1 into label maps.

    Args:
        masks: bool, or numbers that are 0 or 1, ``[B, K, H, W]`` (or longer, e.g. ``[B, K, 1, H, W]``). DeepMind's
            readers give 0 and 255, which is refused: divide by 255.
        axis: Where the K masks are.
        uncovered: A pixel that no mask covers is refused, or gets the label -1 (``"unscored"``).

    Returns:
        Whole numbers ``[B, H, W]``, in the library and on the device of ``masks``.

    Raises:
        ValueError: If a value is neither 0 nor 1, masks overlap, or a pixel is in none.
    """
    if uncovered not in ("refuse", "unscored"):
        raise ValueError(f"uncovered: expected 'refuse' or 'unscored', got {uncovered!r}.")
    masks = _detached(masks)
    _check_masks(masks, axis, "biuf")
    _check_binary(masks)
    covered = _sum(masks, axis)
    least, most = int(covered.min()), int(covered.max())
    if most > 1:
        raise ValueError(
            f"masks: expected each pixel in one mask, got a pixel in {most}; they overlap, so that no label map holds "
            "them. Give each pixel to the mask in front first."
        )
    if least == 0 and uncovered == "refuse":
        raise ValueError(
            "masks: expected each pixel in one mask, got a pixel in none; add a background mask, or say "
            "uncovered='unscored' to have it left out."
        )
    labels = _first_largest(masks, axis)
    return labels if least else _where(covered > 0, labels, UNSCORED)


def labels_of_soft_masks(masks: Array, axis: int = 1, *, threshold: float | None = None) -> Array:
    """Turn soft masks into label maps: each pixel goes to its largest mask, of several to the first.

    Args:
        masks: Floats ``[B, K, H, W]`` in [0, 1], summing to 1 over the K masks; both to 1e-3 (bfloat16: 1e-2).
        axis: Where the K masks are.
        threshold: A pixel whose largest mask is not above this is in no slot: its label is -1. Without it, every
            pixel is in a slot, as in all projects that score ARI.

    Returns:
        Whole numbers ``[B, H, W]``, in the library and on the device of ``masks``.

    Raises:
        ValueError: If masks are not floats, not finite, outside [0, 1], or do not sum to 1.
    """
    if dtype_kind(array_named("masks", masks)) != "f":
        raise ValueError(
            f"masks: expected floats, got {masks.dtype}; masks of 0 and 1 go through metrics.labels_of_one_hot, label "
            "maps are scored as they are."
        )
    if threshold is not None and not (is_finite(threshold) and 0 <= threshold < 1):
        raise ValueError(f"threshold: expected a number in [0, 1), got {threshold!r}.")
    masks = _detached(masks)
    _check_masks(masks, axis, "f")
    tolerance = _TOLERANCE_BFLOAT16 if str(masks.dtype) == "torch.bfloat16" else _TOLERANCE
    low, high = float(masks.min()), float(masks.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("masks: expected finite values, got NaN or infinity.")
    if low < -tolerance or high > 1 + tolerance:
        cure = "; exponentiate logarithms of masks first" if high <= 0 else ""
        raise ValueError(f"masks: expected values in [0, 1], got {low:.4g}..{high:.4g}{cure}.")
    off = float(abs(_sum(masks, axis) - 1).max())
    if off > tolerance:
        raise ValueError(f"masks: expected to sum to 1 along axis {axis}, got sums off by up to {off:.3g}.")
    labels = _first_largest(masks, axis)
    if threshold is None:
        return labels
    return _where(library_of(masks).amax(masks, axis) > threshold, labels, UNSCORED)


def _range(labels: Array) -> tuple[int, int]:
    """Return the smallest and the largest label; on an accelerator this waits for the device, once a call."""
    if not is_tensor(labels):
        return int(labels.min()), int(labels.max())
    torch = sys.modules["torch"]
    ends = torch.stack(torch.aminmax(labels.byte() if labels.dtype == torch.bool else comparable(labels)))
    smallest, largest = ends.tolist()
    return int(smallest), int(largest)


def check_form(name: str, labels: Any) -> None:
    """Raise unless these have the rank, the dtype and the size of label maps."""
    shape = tuple(array_named(name, labels).shape)
    if dtype_kind(labels) not in "biu":
        raise ValueError(
            f"{name}: expected label maps of whole numbers, got {labels.dtype}; soft masks go through "
            "metrics.labels_of_soft_masks, whole numbers kept as floats through .astype(int)."
        )
    if len(shape) < 3:
        cure = "; one image is labels[None], rows of pixels are labels[:, None]" if len(shape) == 2 else ""
        raise ValueError(f"{name}: expected label maps [B, H, W], got shape {list(shape)}{cure}.")
    if 0 in shape:
        raise ValueError(
            f"{name}: expected at least one image with at least one pixel, got {list(shape)}; is the set empty?"
        )


def _check_masks(masks: Any, axis: int, kinds: str) -> None:
    shape = tuple(array_named("masks", masks).shape)
    if len(shape) < 4:
        raise ValueError(f"masks: expected [B, K, H, W], got shape {list(shape)}.")
    if not is_whole(axis, -len(shape)) or axis >= len(shape) or axis % len(shape) == 0:
        raise ValueError(
            f"axis: expected one of the axes 1..{len(shape) - 1} of masks {list(shape)}, got {axis!r}."
        )
    if 0 in shape:
        raise ValueError(f"masks: expected at least one image, mask and pixel, got {list(shape)}.")
    if dtype_kind(masks) not in kinds:
        raise ValueError(f"masks: expected bool or numbers, got {masks.dtype}.")


def _check_binary(masks: Array) -> None:
    """Raise unless every value is 0 or 1."""
    if dtype_kind(masks) == "b":
        return
    other = (masks != 0) & (masks != 1)
    if not bool(other.any()):
        return
    value = float(masks[other][0])
    if not np.isfinite(value):
        raise ValueError("masks: expected finite values, got NaN or infinity.")
    if value == 255 and not bool((other & (masks != 255)).any()):
        raise ValueError(
            "masks: expected one-hot masks of 0 and 1, got 0 and 255, as DeepMind's readers give them; divide by 255."
        )
    cure = (
        "; soft masks go through metrics.labels_of_soft_masks"
        if 0 < value < 1
        else "; label maps need no masks"
    )
    raise ValueError(f"masks: expected one-hot masks of 0 and 1, got {value:g}{cure}.")


def array_named(name: str, value: Any) -> Any:
    """Return ``value``; raise unless it is an array."""
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        raise ValueError(f"{name}: expected an array, got {type(value).__name__}.")
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(
            f"{name}: expected a plain array, got a masked one, whose mask would be overlooked; give its data, and "
            "its mask as ignore=."
        )
    return value


def _detached(masks: Any) -> Any:
    return masks.detach() if is_tensor(masks) else masks


def _one_hot(labels: Array) -> bool:
    return bool((_sum(labels, 1) == 1).all())


def _sum(masks: Array, axis: int) -> Array:
    """Sum exactly enough: bytes and half precision would run over or round."""
    if is_tensor(masks):
        torch = sys.modules["torch"]
        return masks.sum(axis, dtype=torch.float32 if masks.is_floating_point() else torch.int64)
    return masks.sum(axis, dtype=np.float32 if masks.dtype.kind == "f" else np.int64)


def _first_largest(masks: Array, axis: int) -> Array:
    """`argmax` that takes the first of equal ones on every device; CUDA's own does not promise which."""
    if not is_tensor(masks):
        return _first_largest_array(masks, axis)
    masks = masks.byte() if str(masks.dtype) == "torch.bool" else comparable(masks)
    if masks.device.type == "cpu":
        return like(_first_largest_array(to_numpy(masks), axis), masks)
    torch = sys.modules["torch"]
    slots = masks.shape[axis]
    number = torch.arange(slots, device=masks.device).view(
        [-1 if i == axis % masks.ndim else 1 for i in range(masks.ndim)]
    )
    return torch.where(masks == masks.amax(axis, keepdim=True), number, slots).amin(axis)


def _first_largest_array(masks: np.ndarray, axis: int) -> np.ndarray:
    """`argmax` slot by slot, a few images at a time: several times as fast where slots are few and pixels many."""
    masks = np.moveaxis(masks, axis, 1)  # [B, K, ...]
    images, slots = masks.shape[:2]
    if slots > 256:
        return masks.argmax(1)
    labels = np.zeros((images, *masks.shape[2:]), np.uint8)
    step = max(1, _CACHE // labels[0].size)
    for start in range(0, images, step):
        part, found = masks[start : start + step], labels[start : start + step]
        best = part[:, 0].copy()
        for slot in range(1, slots):
            here = (part[:, slot] > best).view(np.uint8)
            np.maximum(found, here * np.uint8(slot), out=found)  # later slots have larger numbers
            np.maximum(best, part[:, slot], out=best)
    return labels


def _where(condition: Array, labels: Array, other: int) -> Array:
    wide = labels.long() if is_tensor(labels) else labels.astype(np.int64)
    return library_of(labels).where(condition, wide, other)


def comparable(labels: Any) -> Any:
    """Return a tensor in a type that torch can compare."""
    return labels.long() if str(labels.dtype) in _NARROW else labels
