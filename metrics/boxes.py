"""Boxes: how well inferred bounding boxes cover the true ones."""

from __future__ import annotations

from typing import Literal

import numpy as np

from metrics.matching import match
from multiobj_data.arrays import Array, like, to_numpy
from multiobj_data.scenes import expect


def box_iou(true: Array, predicted: Array) -> Array:
    """Intersection over union of every true with every predicted box of the same image.

    Boxes are ``x0 y0 x1 y1``, half-open, so that a box of one pixel has area 1. One with ``x1 <= x0`` or
    ``y1 <= y0`` is empty: it meets nothing.

    Args:
        true: Floats ``[B, K, 4]``.
        predicted: Floats ``[B, S, 4]``.

    Returns:
        float64 ``[B, K, S]``; NaN for a pair of two empty boxes or with a NaN corner.
    """
    expect("true", true, (None, None, 4), "f")
    expect("predicted", predicted, (len(true), None, 4), "f")
    return like(_iou(to_numpy(true), to_numpy(predicted)), predicted)


def matched_box_iou(
    true_boxes: Array,
    true_count: Array,
    predicted_boxes: Array,
    predicted_present: Array,
    *,
    empty: Literal["skip", "one"] = "skip",
) -> Array:
    """Return the mIoU of AIR-ASR: the best matching's summed IoU over the larger number of boxes.

    ``max over matchings of sum IoU / max(n inferred, n true)`` (Xu et al., "Multi-objects Generation with
    Amortized Structural Regularization", NeurIPS 2019, sec. 5): missing and surplus boxes both cost. Where
    only one side has boxes it is 0.

    Differs from the paper: boxes are half-open, where the released code adds a pixel to each side.

    Args:
        true_boxes: Floats ``[B, K, 4]``; an image's first ``true_count`` boxes are its objects.
        true_count: Whole numbers ``[B]``.
        predicted_boxes: Floats ``[B, S, 4]`` in pixels.
        predicted_present: bool ``[B, S]``, which predicted boxes are meant to be objects.
        empty: An image without true and without predicted boxes (0/0) is NaN, i.e. skipped (``"skip"``), or
            1 (``"one"``).

    Returns:
        float64 ``[B]``, NaN also where a true object's box is unknown (NaN).

    Raises:
        ValueError: If shapes disagree, or a predicted box that is present has a corner that is not finite.
    """
    _check(true_boxes, true_count, predicted_boxes, predicted_present, empty)
    count: np.ndarray = to_numpy(true_count)
    present: np.ndarray = to_numpy(predicted_present)
    boxes, answers = to_numpy(true_boxes).astype(np.float64), to_numpy(predicted_boxes).astype(np.float64)
    if not np.isfinite(answers[present]).all():
        raise ValueError("predicted_boxes: expected finite corners where present, got NaN or infinity.")
    objects: np.ndarray = np.arange(boxes.shape[1]) < count[:, None]  # [B, K]
    known = np.asarray(np.isfinite(boxes).all(-1))  # [B, K]
    pairs = objects[:, :, None] & known[:, :, None] & present[:, None, :]  # [B, K, S]
    iou = _iou(np.where(known[..., None], boxes, 0), np.where(present[..., None], answers, 0))  # [B, K, S]
    total = match(np.where(pairs, iou, 0.0)).score.sum(1)  # [B]
    larger = np.maximum(count, present.sum(1))  # [B]
    none = np.full(len(total), 1.0 if empty == "one" else np.nan)
    score = np.divide(total, larger, out=none, where=larger > 0)  # [B]
    return like(np.where((objects & ~known).any(1), np.nan, score), predicted_boxes)


def _iou(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    t, p = (
        true[:, :, None].astype(np.float64),
        predicted[:, None].astype(np.float64),
    )  # [B, K, 1, 4], [B, 1, S, 4]
    shared = _area(np.maximum(t[..., :2], p[..., :2]), np.minimum(t[..., 2:], p[..., 2:]))  # [B, K, S]
    union = _area(t[..., :2], t[..., 2:]) + _area(p[..., :2], p[..., 2:]) - shared
    return np.divide(shared, union, out=np.full(union.shape, np.nan), where=union > 0)


def _area(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.clip(high - low, 0, None).prod(-1)


def _check(boxes: Array, count: Array, answers: Array, present: Array, empty: str) -> None:
    expect("true_boxes", boxes, (None, None, 4), "f")
    b, k, _ = boxes.shape
    expect("true_count", count, (b,), "iu")
    expect("predicted_boxes", answers, (b, None, 4), "f")
    expect("predicted_present", present, (b, answers.shape[1]), "b")
    if b and not 0 <= int(count.min()) <= int(count.max()) <= k:
        raise ValueError(f"true_count: expected 0..{k}, got {int(count.min())}..{int(count.max())}.")
    if empty not in ("skip", "one"):
        raise ValueError(f"empty: expected 'skip' or 'one', got {empty!r}.")
