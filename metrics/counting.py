"""Counting: how many objects a model infers, and how often and by how much that is wrong."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from metrics.libraries import is_finite, library_of
from multiobj_data.arrays import Array, as_double, like, to_numpy
from multiobj_data.scenes import expect

_MOST_CELLS = 10_000_000

CountRule = Literal["threshold", "rounded", "cumulative", "mode", "sample"]


def inferred_count(
    presence: Array,
    rule: CountRule = "threshold",
    *,
    threshold: float = 0.5,
    rng: np.random.Generator | None = None,
) -> Array:
    """Return the number of objects that a model infers, by one of the rules in use; they differ.

    - ``"threshold"``: how many slots have a presence of at least ``threshold``. Ours, and `evaluate`'s.
    - ``"rounded"``: the sum of the presences, each rounded, halves to the even 0. SuPAIR's code (Stelzner et
      al. 2019).
    - ``"cumulative"``: how many slots in a row, from the first, are reached with a probability of at least
      ``threshold``: presences are the decisions ``p_t = P(z_t = 1 | z_{t-1} = 1)`` of an AIR.
    - ``"mode"``: the most probable N under the same decisions, ``q(n) = p_1 ... p_n (1 - p_{n+1})``. Where q(n)
      itself is given, see `most_probable_count`.
    - ``"sample"``: one draw of those decisions, as Pyro's AIR example has it; noisy, so needs ``rng``.

    Args:
        presence: Floats ``[B, S]`` in [0, 1].
        rule: As above.
        threshold: Least probability of an object, for ``"threshold"`` and ``"cumulative"``.
        rng: Source of the draws of ``"sample"``.

    Returns:
        int64 ``[B]``, in the library and on the device of ``presence``.

    Raises:
        ValueError: If a presence is outside [0, 1] or NaN, the rule is unknown or a sample lacks its ``rng``.
    """
    expect("presence", presence, (None, None), "f")
    p = as_double(presence, presence)  # [B, S]
    _check_probabilities("presence", p)
    if rule not in get_args(CountRule):
        raise ValueError(f"rule: expected one of {', '.join(get_args(CountRule))}, got {rule!r}.")
    if not is_finite(threshold):
        raise ValueError(f"threshold: expected a finite number, got {threshold!r}.")
    if rule == "threshold":
        return (p >= threshold).sum(1)
    if rule == "rounded":
        return (p > 0.5).sum(1)
    reached = p.cumprod(1)  # [B, S], P(N >= t)
    if rule == "cumulative":
        return (reached >= threshold).sum(1)
    if rule == "mode":
        one = like(np.ones((len(p), 1)), p)
        library = library_of(p)
        stop = library.concatenate([1 - p, one], 1)  # [B, S + 1]: nothing to stop after the last slot
        return (library.concatenate([one, reached], 1) * stop).argmax(1)
    if not isinstance(rng, np.random.Generator):
        raise ValueError(
            f"rng: expected a numpy.random.Generator for rule 'sample', got {type(rng).__name__}."
        )
    return (like(rng.random(tuple(p.shape)), p) < p).cumprod(1).sum(1)


def most_probable_count(probabilities: Array) -> Array:
    """Return ``argmax_n q(n)``, the smaller of two that are equally probable.

    Args:
        probabilities: Floats ``[B, N + 1]``: q(n) for n = 0..N; each row sums to 1.

    Returns:
        int64 ``[B]``, in the library and on the device of ``probabilities``.

    Raises:
        ValueError: If a row is no distribution.
    """
    expect("probabilities", probabilities, (None, None), "f")
    q = as_double(probabilities, probabilities)
    _check_probabilities("probabilities", q)
    if len(q) and not (off := float(abs(q.sum(1) - 1).max())) <= 1e-3:
        raise ValueError(f"probabilities: expected rows that sum to 1, got sums off by up to {off:.3g}.")
    return q.argmax(1)


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


def count_accuracy_by_count(true: Array, predicted: Array, *, largest: int | None = None) -> Array:
    """Return, for each true number of objects, the share of its images that are counted right.

    Arguments and errors are those of `count_confusion`, of which this is the diagonal over the rows' sums.

    Returns:
        float64 ``[T + 1]``; NaN for a count that no image has.
    """
    table = to_numpy(count_confusion(true, predicted, largest=largest))  # [T + 1, P + 1]
    images, right = table.sum(1), np.zeros(len(table))
    diagonal = np.diagonal(table)
    right[: len(diagonal)] = diagonal  # a count that was never inferred has no column
    share = np.divide(right, images, out=np.full(len(table), np.nan), where=images > 0)
    return like(share, predicted)


def _check(true: Array, predicted: Array) -> None:
    expect("true", true, (None,), "iu")
    expect("predicted", predicted, (len(true),), "iu")


def _error(true: Array, predicted: Array) -> np.ndarray:
    _check(true, predicted)
    return to_numpy(predicted).astype(np.int64) - to_numpy(true).astype(np.int64)


def _check_probabilities(name: str, p: Array) -> None:
    if p.shape[0] * p.shape[1] and not bool(((p >= 0) & (p <= 1)).all()):  # False for NaN, too
        raise ValueError(
            f"{name}: expected values in [0, 1], got {float(p.min()):.4g}..{float(p.max()):.4g}."
        )
