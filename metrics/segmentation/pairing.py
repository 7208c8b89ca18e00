"""True and predicted label maps side by side, checked against each other and laid out for counting."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from metrics.segmentation.labels import array_named, check_form, checked, comparable
from multiobj_data.arrays import Array, is_tensor, like, to_numpy
from multiobj_data.scenes import dtype_kind


class Pair(NamedTuple):
    """True and predicted labels of images of one size, pixels in one row."""

    rows: Any
    """Which images of the caller these are: an index into ``[B]``."""
    true: Array
    """Whole numbers ``[b, P]``."""
    predicted: Array
    """Whole numbers ``[b, P]``, in the same library and on the same device."""
    ignore: Array | None
    """bool ``[b, P]``: pixels that are not scored."""
    true_range: tuple[int, int]
    """Smallest and largest true label."""
    predicted_range: tuple[int, int]
    """Smallest and largest predicted label."""


def pairs(true: Any, predicted: Any, ignore: Any = None) -> Iterator[Pair]:
    """Check label maps against each other and yield them by size of image.

    Args:
        true: Label maps ``[B, H, W]`` or longer; or a list of B maps of any sizes (no batch axis).
        predicted: The same form and sizes.
        ignore: bool, the same form and sizes; ``True`` where a pixel is not scored.

    Raises:
        ValueError: If either are no label maps, or their sizes disagree.
    """
    ragged = isinstance(true, list | tuple)
    if ragged != isinstance(predicted, list | tuple) or (
        ignore is not None and ragged != isinstance(ignore, list | tuple)
    ):
        raise ValueError("true, predicted, ignore: expected lists of label maps for all of them or for none.")
    if not ragged:
        yield _pair(slice(None), true, predicted, ignore)
        return
    _check_lengths(true, predicted, ignore)
    sizes: dict[tuple[int, ...], list[int]] = {}
    for row, labels in enumerate(true):
        sizes.setdefault(tuple(array_named(f"true[{row}]", labels).shape), []).append(row)
    for size, rows in sizes.items():
        if len(size) < 2:
            raise ValueError(f"true[{rows[0]}]: expected a label map [H, W], got shape {list(size)}.")
        parts = [
            None if maps is None else _stack(name, maps, rows, size)
            for name, maps in (("true", true), ("predicted", predicted), ("ignore", ignore))
        ]
        yield _pair(np.array(rows), *parts)


def _pair(rows: Any, true: Array, predicted: Array, ignore: Array | None) -> Pair:
    check_form("true", true)
    check_form("predicted", predicted)
    if tuple(true.shape) != tuple(predicted.shape):
        raise ValueError(
            f"predicted: expected label maps of the size of the true ones, {list(true.shape)}, got "
            f"{list(predicted.shape)}; scale them without mixing labels (nearest), or score at another size."
        )
    if ignore is not None and (
        tuple(array_named("ignore", ignore).shape) != tuple(true.shape) or dtype_kind(ignore) != "b"
    ):
        raise ValueError(
            f"ignore: expected bool {list(true.shape)} (True: not scored), got {ignore.dtype} {list(ignore.shape)}."
        )
    ranges = checked("true", true), checked("predicted", predicted)
    on_host = not is_tensor(predicted) or predicted.device.type == "cpu"
    true, predicted, ignore = (
        None if maps is None else _flat(to_numpy(maps) if on_host else like(maps, predicted))
        for maps in (true, predicted, ignore)
    )
    return Pair(rows, true, predicted, ignore, *ranges)


def _check_lengths(true: Sequence, predicted: Sequence, ignore: Sequence | None) -> None:
    if not len(true):
        raise ValueError("true: expected at least one label map, got an empty list.")
    for name, maps in (("predicted", predicted), ("ignore", ignore)):
        if maps is not None and len(maps) != len(true):
            raise ValueError(f"{name}: expected {len(true)} maps, as many as true ones, got {len(maps)}.")


def _stack(name: str, maps: Sequence[Any], rows: list[int], size: tuple[int, ...]) -> Array:
    for row in rows:
        if tuple(array_named(f"{name}[{row}]", maps[row]).shape) != size:
            raise ValueError(
                f"{name}[{row}]: expected the size of the true map, {list(size)}, got {list(maps[row].shape)}."
            )
    if is_tensor(maps[rows[0]]):
        return sys.modules["torch"].stack([maps[row] for row in rows])
    return np.stack([to_numpy(maps[row]) for row in rows])


NO_LABEL = np.iinfo(np.int64).max
"""Stands in a list of labels for what is no label."""


def compact_labels(labels: Array) -> tuple[Array, Array]:
    """Number each image's labels anew, 0, 1, ... by increasing label, so that tables of them are small.

    Args:
        labels: Whole numbers ``[B, H, W]``, or any other shape with at least one pixel an image.

    Returns:
        Labels, int64 of the same shape; and what each of them stands for, int64 ``[B, L]``, where images with fewer
        labels are filled up with `NO_LABEL`, the largest int64.

    Raises:
        ValueError: If these are no whole numbers of that shape, or one is as large as `NO_LABEL`.
    """
    shape = tuple(array_named("labels", labels).shape)
    if dtype_kind(labels) not in "biu" or len(shape) < 2 or 0 in shape:
        raise ValueError(
            f"labels: expected whole numbers [B, H, W] with at least one image and one pixel, got {labels.dtype} "
            f"{list(shape)}."
        )
    if int(comparable(labels).max()) >= NO_LABEL:
        raise ValueError("labels: expected labels below 2**63 - 1, got a larger one.")
    return renumbered(labels)


def renumbered(labels: Array) -> tuple[Array, Array]:
    """Do what `compact_labels` does, unasked: of what has been checked, and may hold `NO_LABEL` already."""
    shape = tuple(labels.shape)
    compact, meaning = (_compact_tensor if is_tensor(labels) else _compact_array)(_flat(labels))
    return compact.reshape(shape), meaning


def _compact_array(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(labels, 1, kind="stable")  # [B, P]
    values = np.take_along_axis(labels, order, 1).astype(np.int64)
    rank = np.zeros(values.shape, np.int64)
    np.cumsum(values[:, 1:] != values[:, :-1], axis=1, out=rank[:, 1:])
    compact = np.empty_like(rank)
    np.put_along_axis(compact, order, rank, 1)
    meaning = np.full((len(values), int(rank.max()) + 1), NO_LABEL)
    np.put_along_axis(meaning, rank, values, 1)
    return compact, meaning


def _compact_tensor(labels: Any) -> tuple[Any, Any]:
    values, order = labels.long().sort(dim=1)
    rank = values.new_zeros(values.shape)
    rank[:, 1:] = (values[:, 1:] != values[:, :-1]).cumsum(1)
    compact = rank.new_empty(rank.shape).scatter_(1, order, rank)
    meaning = values.new_full((len(values), int(rank.max()) + 1), NO_LABEL).scatter_(1, rank, values)
    return compact, meaning


def _flat(labels: Array) -> Array:
    if is_tensor(labels):
        return comparable(labels).reshape(len(labels), -1)
    return labels.reshape(len(labels), -1)
