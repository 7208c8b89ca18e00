"""The one kernel of all segmentation metrics: how many pixels each true label shares with each predicted one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from metrics.libraries import library_of, ratio
from metrics.segmentation.pairing import NO_LABEL, Pair, pairs, renumbered
from multiobj_data.arrays import Array, is_tensor, like

_MOST_CELLS = 4096  # of one image's table; where labels ask for more, each image's are numbered anew
_ABSURD = 2**22  # cells of one image's table: 32 megabytes
_TABLES = 2**30  # cells that `contingency_table` returns: eight gigabytes
_PIXELS, _CELLS = 2**22, 2**21  # of the images that are counted together: some tens of megabytes
_DEVICE_PIXELS, _DEVICE_CELLS = 2**26, 2**25
_CACHE = 2**15  # pixels that are coded together on a processor: their codes stay in its cache
_HOST_LANES, _LANES = 4, 32  # copies of each table: the pixels of one object would queue for a single cell


def contingency_table(
    true: Array, predicted: Array, *, ignore: Array | None = None, num_labels: tuple[int, int] | None = None
) -> Array:
    """Count the pixels of each pair of a true and a predicted label.

    Args:
        true: Label maps ``[B, H, W]`` or longer (see `labels`); a pixel with a negative label is not counted.
        predicted: The same shape; 0 or more where the truth is counted.
        ignore: bool, the same shape; ``True`` where a pixel is not counted.
        num_labels: Declared numbers of true and of predicted labels ``(G, K)``; without them, tables are as large
            as the largest labels ask for.

    Returns:
        float64 ``[B, G, K]``, exact; in the library and on the device of ``predicted``.

    Raises:
        ValueError: If these are no label maps of one shape, a label is above the declared number, or labels are so
            large that they had better be numbered anew.
    """
    if isinstance(true, list | tuple):
        raise ValueError("true: expected an array; only the metrics themselves take lists of label maps.")
    (pair,) = pairs(true, predicted, ignore)
    (low, high), (least, most) = pair.true_range, pair.predicted_range
    out = _without(pair.true, low, pair.ignore)
    if num_labels is not None:
        high, most = (number - 1 for number in _declared(pair, out, num_labels))
    g, k = max(high, 0) + 1, max(most, 0) + 1
    if len(pair.true) * (g + 1) * (k + 1) > _TABLES:
        raise ValueError(
            f"contingency_table: {len(pair.true)} tables of {g} x {k} labels are too large; number each image's labels "
            "anew by metrics.compact_labels, or give fewer images."
        )
    codes, names = _coded(pair.true, out, g, compact=False)
    no_slot = _without(pair.predicted, least, None)
    if num_labels is not None and out is not None:
        no_slot = (
            out if no_slot is None else no_slot | out
        )  # whatever stands there, it may be above the number
    answers, slots = _coded(pair.predicted, no_slot, k, compact=False)
    table = count_pairs(codes, answers, names.shape[1], slots.shape[1])
    if slots.shape[1] > k and bool(table[:, :g, k].any()):
        raise ValueError(NEGATIVE)
    return like(table[:, :g, :k], predicted)


def ious_of(table: Array) -> Array:
    """Return the intersection over union of every true with every predicted segment of a `contingency_table`.

    Args:
        table: float64 ``[B, G, K]``, with all pixels that count.

    Returns:
        float64 ``[B, G, K]``; 0 where neither has a pixel.
    """
    return ratio(table, table.sum(2)[..., None] + table.sum(1)[:, None] - table, 0.0)


def _declared(pair: Pair, out: Array | None, num_labels: tuple[int, int]) -> tuple[int, int]:
    """Return the declared numbers of labels, once all labels that count have been found to be below them."""
    if len(num_labels) != 2 or min(num_labels) < 1:
        raise ValueError(f"num_labels: expected numbers of true and of predicted labels, got {num_labels}.")
    for name, labels, number in zip(("true", "predicted"), pair[1:3], num_labels, strict=True):
        largest = int((labels if out is None else labels * ~out).max())
        if largest >= number:
            raise ValueError(
                f"{name}: expected labels below the declared number of {number}, got {largest}; declare more, or look "
                "where it comes from."
            )
    return num_labels


NEGATIVE = "predicted: expected labels of 0 or more where the truth is scored, got a negative one: a pixel in no slot."


class Overlaps(NamedTuple):
    """How the segments of b images overlap: all that the metrics need to know.

    Rows and columns named `NO_LABEL` are no segments: pixels that are not scored (row), pixels that no slot claims
    (column), or nothing at all.
    """

    rows: Any
    """Which images of the caller these are: an index into ``[B]``."""
    table: Array
    """float64 ``[b, G, K]``: pixels by true and predicted label."""
    true_labels: Array
    """int64 ``[1 or b, G]``: the label of each row."""
    predicted_labels: Array
    """int64 ``[1 or b, K]``: the label of each column."""

    @property
    def library(self) -> Any:
        """NumPy or torch: what the arrays belong to."""
        return library_of(self.table)


def overlaps(
    true: Any, predicted: Any, ignore: Any = None, *, negative: str = "unscored"
) -> Iterator[Overlaps]:
    """Check label maps and yield their tables, a bounded number of pixels and cells at a time.

    Args:
        true: Label maps ``[B, H, W]`` or longer, or a list of maps of any sizes.
        predicted: The same form and sizes.
        ignore: bool, the same form and sizes; ``True`` where a pixel is not scored.
        negative: Pixels with a negative true label are ``"unscored"``, and a negative predicted label says that no
            slot claims the pixel; or a negative label is a label as any other (``"class"``).

    Raises:
        ValueError: As `metrics.segmentation.pairing.pairs`.
    """
    for pair in pairs(true, predicted, ignore):
        yield from _chunks(pair, negative == "class")


def _chunks(pair: Pair, negative_is_class: bool) -> Iterator[Overlaps]:
    (low, high), (least, most) = pair.true_range, pair.predicted_range
    g, k = max(high, 0) + 1, max(most, 0) + 1
    compact = (g + 1) * (k + 1) > _MOST_CELLS or (negative_is_class and min(low, least) < 0)
    if negative_is_class:
        low = least = 0
    images, pixels = pair.true.shape
    most_pixels, most_cells = (_DEVICE_PIXELS, _DEVICE_CELLS) if is_tensor(pair.true) else (_PIXELS, _CELLS)
    step = max(1, min(most_pixels // pixels, most_cells // ((g + 1) * (k + 1)) if not compact else images))
    for start in range(0, images, step):
        part = slice(start, min(start + step, images))
        true, predicted = pair.true[part], pair.predicted[part]
        out = _without(true, low, None if pair.ignore is None else pair.ignore[part])
        codes, names = _coded(true, out, g, compact)
        answers, slots = _coded(predicted, _without(predicted, least, None), k, compact)
        yield from _counted(pair.rows, start, codes, answers, names, slots, most_cells)


def _counted(
    rows: Any, start: int, codes: Array, answers: Array, names: Array, slots: Array, most_cells: int
) -> Iterator[Overlaps]:
    g, k = int(names.shape[1]), int(slots.shape[1])
    if g * k > _ABSURD:
        raise ValueError(
            f"true, predicted: {g} x {k} different labels in one image are too many; are these label maps?"
        )
    step = max(1, most_cells // (g * k))
    for first in range(0, len(codes), step):
        part = slice(first, min(first + step, len(codes)))
        here = slice(start + part.start, start + part.stop)
        yield Overlaps(
            rows=here if isinstance(rows, slice) else rows[here],
            table=count_pairs(codes[part], answers[part], g, k),
            true_labels=names if len(names) == 1 else names[part],
            predicted_labels=slots if len(slots) == 1 else slots[part],
        )


def _without(labels: Array, smallest: int, ignore: Array | None) -> Array | None:
    """Return which pixels stay out of the table, bool ``[b, P]``; ``None`` for none of them."""
    if smallest >= 0:
        return ignore
    return labels < 0 if ignore is None else ignore | (labels < 0)


def _coded(labels: Array, out: Array | None, number: int, compact: bool) -> tuple[Array, Array]:
    """Return codes ``[b, P]``, 0 or more, and the label of each code, int64 ``[1 or b, L]``."""
    if out is not None:
        labels = labels.long() if is_tensor(labels) else labels.astype(np.int64)
        labels = library_of(labels).where(out, NO_LABEL if compact else number, labels)
    if compact:
        return renumbered(labels)
    names = np.arange(number)
    return labels, like((names if out is None else np.append(names, NO_LABEL))[None], labels)


def count_pairs(true: Array, predicted: Array, g: int, k: int) -> Array:
    """Count pairs of codes, which must be in range.

    Args:
        true: Whole numbers ``[B, P]`` in 0..g-1; NumPy arrays, or torch tensors on any device.
        predicted: Whole numbers ``[B, P]`` in 0..k-1.
        g: Rows.
        k: Columns.

    Returns:
        float64 ``[B, g, k]``, exact.
    """
    if is_tensor(true):
        return _count_on_device(true, predicted, g, k)
    return _count_on_host(true, predicted, g, k)


def _count_on_host(true: np.ndarray, predicted: np.ndarray, g: int, k: int) -> np.ndarray:
    """Count by `bincount`, a few images at a time: codes stay as small as they can be, and in the cache.

    Neighbours mostly have the same label, and a processor waits for one addition before it starts the next to the same
    cell. So pixels take turns with copies of the table, their lanes.
    """
    images, pixels = true.shape
    step = max(1, min(images, _CACHE // pixels))
    lanes = _HOST_LANES if step * _HOST_LANES * g * k <= 2**16 else 1
    cells = lanes * g * k
    dtype = np.min_scalar_type(max(g * k - 1, k))
    offset = np.arange(step)[:, None] * cells + np.arange(pixels) % lanes * (g * k)  # [step, P]
    offset = offset.astype(np.min_scalar_type(step * cells - 1))
    table = np.empty((images, g * k))
    for start in range(0, images, step):
        part = slice(start, start + step)
        codes = true[part].astype(dtype)  # [step, P]
        codes *= dtype.type(k)
        codes += predicted[part].astype(dtype, copy=False)
        n = len(codes)
        found = np.bincount((codes + offset[:n]).reshape(-1), minlength=n * cells)
        found.reshape(n, lanes, g * k).sum(1, out=table[part])
    return table.reshape(images, g, k)


def _count_on_device(true: Any, predicted: Any, g: int, k: int) -> Any:
    """Count by integer `scatter_add_`: exact in any order, and the host never waits."""
    torch = sys.modules["torch"]
    images, pixels = true.shape
    lanes = max(1, min(_LANES, _DEVICE_CELLS // (images * g * k)))
    lane = torch.arange(pixels, device=true.device) % lanes  # [P]
    codes = (lane * g + true.long()) * k + predicted.long()  # [B, P]
    counts = torch.zeros(images, lanes * g * k, dtype=torch.int64, device=true.device)
    counts.scatter_add_(1, codes, torch.ones_like(codes))
    return counts.view(images, lanes, g, k).sum(1).double()
