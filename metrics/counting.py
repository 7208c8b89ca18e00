"""Counting: how often, and by how much, a model's number of objects is wrong."""

from __future__ import annotations

import numpy as np

from multiobj_data.arrays import Array, like, to_numpy
from multiobj_data.scenes import expect

_MOST_CELLS = 10_000_000


def count_accuracy(true: Array, predicted: Array) -> Array:
    """Return 1 where the inferred number of objects is the true one, else 0.

    The mean over images is the "count accuracy" of AIR (Eslami et al., NeurIPS 2016, fig. 3) and the ACC of
    AIR-ASR (Xu et al., NeurIPS 2019, sec. 5).

    Args:
        true: Whole numbers ``[B]``.
        predicted: Whole numbers ``[B]``.

    Returns:
        float64 ``[B]``, in the library and on the device of ``predicted``.

    Raises:
        ValueError: If the arrays are not whole numbers of one shape ``[B]``.
    """
    return like((_error(true, predicted) == 0).astype(np.float64), predicted)


def count_error(true: Array, predicted: Array) -> Array:
    """Return inferred minus true number of objects, float64 ``[B]``; its mean is the model's bias.

    Arguments and errors are those of `count_accuracy`.
    """
    return like(_error(true, predicted).astype(np.float64), predicted)


def count_absolute_error(true: Array, predicted: Array) -> Array:
    """Return by how many objects the inferred number is off, float64 ``[B]``.

    Arguments and errors are those of `count_accuracy`.
    """
    return like(np.abs(_error(true, predicted)).astype(np.float64), predicted)


def count_confusion(true: Array, predicted: Array, *, largest: int | None = None) -> Array:
    """Count how often each true number of objects was taken for each inferred number.

    Args:
        true: Whole numbers ``[B]``, 0 or more.
        predicted: Whole numbers ``[B]``, 0 or more.
        largest: Rows and columns both run to this count, so that tables of several batches can be added;
            without it they run to the largest true and the largest inferred count.

    Returns:
        int64 ``[T + 1, P + 1]``: rows are true, columns inferred counts.

    Raises:
        ValueError: If a count is negative, above ``largest``, or too large for a table.
    """
    _check(true, predicted)
    rows, columns = to_numpy(true).astype(np.int64), to_numpy(predicted).astype(np.int64)
    last_row, last_column = (int(counts.max(initial=0)) for counts in (rows, columns))
    if min(rows.min(initial=0), columns.min(initial=0)) < 0:
        raise ValueError("count_confusion: expected counts of 0 or more, got a negative one.")
    if largest is not None:
        if max(last_row, last_column) > largest:
            raise ValueError(
                f"count_confusion: expected counts up to {largest}, got {max(last_row, last_column)}."
            )
        last_row = last_column = largest
    shape = last_row + 1, last_column + 1
    if shape[0] * shape[1] > _MOST_CELLS:
        raise ValueError(
            f"count_confusion: a table of {shape[0]} x {shape[1]} counts is too large to be meant."
        )
    cells = np.bincount(rows * shape[1] + columns, minlength=shape[0] * shape[1])
    return like(cells.reshape(shape), predicted)  # [T + 1, P + 1]


def _check(true: Array, predicted: Array) -> None:
    expect("true", true, (None,), "iu")
    expect("predicted", predicted, (len(true),), "iu")


def _error(true: Array, predicted: Array) -> np.ndarray:
    _check(true, predicted)
    return to_numpy(predicted).astype(np.int64) - to_numpy(true).astype(np.int64)
