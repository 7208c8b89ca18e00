"""Boxes: how well inferred bounding boxes cover the true ones.

Boxes are ``x0 y0 x1 y1`` in pixels, half-open, so that a box of one pixel has area 1. A NaN corner means that a
box is unknown; swapped corners (``x1 < x0``) and infinite ones are refused.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from metrics.libraries import is_finite
from metrics.matching import match
from multiobj_data.arrays import Array, like, to_numpy
from multiobj_data.scenes import expect


def box_iou(true: Array, predicted: Array) -> Array:
    """Intersection over union of every true with every predicted box of the same image.

    A box with ``x1 == x0`` or ``y1 == y0`` is empty: it meets nothing.

    Args:
        true: Floats ``[B, K, 4]``.
        predicted: Floats ``[B, S, 4]``.

    Returns:
        float64 ``[B, K, S]``; NaN for a pair of two empty boxes or with a NaN corner.

    Raises:
        ValueError: If shapes disagree, or a corner is infinite or swapped.
    """
    expect("true", true, (None, None, 4), "f")
    expect("predicted", predicted, (len(true), None, 4), "f")
    t, p = to_numpy(true).astype(np.float64), to_numpy(predicted).astype(np.float64)
    check_corners("true", t)
    check_corners("predicted", p)
    return like(pairwise_iou(t, p), predicted)


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
        predicted_present: bool ``[B, S]``, which predicted boxes are meant to be objects; others may be anything.
        empty: An image without true and without predicted boxes (0/0) is NaN, i.e. skipped (``"skip"``), or
            1 (``"one"``).

    Returns:
        float64 ``[B]``, NaN also where a true object's box is unknown (NaN) or has no area.

    Raises:
        ValueError: If shapes disagree, a corner is swapped or infinite, or a predicted box that is present has
            a corner that is not finite.
    """
    if empty not in ("skip", "one"):
        raise ValueError(f"empty: expected 'skip' or 'one', got {empty!r}.")
    sides = _Sides.of(true_boxes, true_count, predicted_boxes, predicted_present)
    total = match(sides.iou()).score.sum(1)  # [B]
    larger = np.maximum(sides.counts, sides.present.sum(1))  # [B]
    none = np.full(len(total), 1.0 if empty == "one" else np.nan)
    score = np.divide(total, larger, out=none, where=larger > 0)  # [B]
    return like(np.where(sides.unknown, np.nan, score), predicted_boxes)


def ocl_box_iou(
    true_boxes: Array, true_count: Array, predicted_boxes: Array, predicted_present: Array
) -> Array:
    """Return the matched IoU of the object-centric learning framework: the mean over the *true* boxes.

    As `matched_box_iou`, but surplus boxes are free, a true box without a partner scores 0, and an image
    without objects is skipped. Arguments and errors are the same.

    Differs from that framework's code: boxes are half-open on both sides; there, boxes of masks have an inclusive
    corner that is read as an exclusive one, so that objects of one pixel have no area.
    """
    sides = _Sides.of(true_boxes, true_count, predicted_boxes, predicted_present)
    return like(sides.mean_over_objects(match(sides.iou()).score.sum(1)), predicted_boxes)


def mean_best_box_overlap(
    true_boxes: Array, true_count: Array, predicted_boxes: Array, predicted_present: Array
) -> Array:
    """Return the best IoU of each true box, whoever else it goes to, averaged over an image's true boxes.

    Surplus boxes are free, and one predicted box may serve several objects; an image without objects is skipped.
    Arguments and errors are those of `matched_box_iou`.
    """
    sides = _Sides.of(true_boxes, true_count, predicted_boxes, predicted_present)
    return like(sides.mean_over_objects(sides.iou().max(2, initial=0).sum(1)), predicted_boxes)


class BoxScore(NamedTuple):
    """A score an image, with the weight that it has in the mean over a set."""

    score: Array
    """float64 ``[B]``; NaN where there is nothing to score."""
    weight: Array
    """float64 ``[B]``: the number of true boxes; 0 exactly where ``score`` is NaN."""

    def micro_average(self) -> float:
        """Return the mean over all true boxes of the batch; NaN if there is none."""
        score, weight = to_numpy(self.score), to_numpy(self.weight)
        scored = weight > 0
        return float(np.average(score[scored], weights=weight[scored])) if scored.any() else float("nan")


def supair_box_score(
    true_boxes: Array,
    true_count: Array,
    predicted_boxes: Array,
    predicted_present: Array,
    *,
    widen: float = 5.0,
    inclusive: float = 1.0,
) -> BoxScore:
    """Return SuPAIR's score (Stelzner et al., ICML 2019; rules from the released code).

    Predicted boxes, widened on every side, choose the true box that they overlap most among those not yet taken,
    in the order of their slots; after as many as there are true boxes the others are ignored, so that surplus boxes
    are free. The published figure is summed IoU over the number of true boxes of the whole set: the
    weighted mean, `BoxScore.micro_average` for one batch.

    Differs from the released code: each image is scored against its own boxes, where the code compares every batch
    with the first batch's.

    Args:
        true_boxes: As in `matched_box_iou`.
        true_count: As there.
        predicted_boxes: As there.
        predicted_present: As there.
        widen: Pixels added to predicted boxes on each of the four sides.
        inclusive: Pixels added to every width and height (of boxes and of intersections): corners are read as
            inclusive. 0 for half-open boxes.

    Returns:
        The score ``[B]`` (summed IoU over the image's true boxes; NaN without any, or with an unknown one) and its
        weight ``[B]``.

    Raises:
        ValueError: As `matched_box_iou`, or if ``widen`` or ``inclusive`` is negative or not finite.
    """
    if not all(is_finite(pixels) and pixels >= 0 for pixels in (widen, inclusive)):
        raise ValueError(
            f"supair_box_score: expected finite pixels of 0 or more, got {widen!r}, {inclusive!r}."
        )
    sides = _Sides.of(true_boxes, true_count, predicted_boxes, predicted_present)
    iou = sides.iou(widen, inclusive)  # [B, K, S]
    total = _greedy(iou, sides)
    weight = np.where(sides.unknown, 0, sides.counts).astype(np.float64)
    return BoxScore(like(sides.mean_over_objects(total), predicted_boxes), like(weight, predicted_boxes))


def _greedy(iou: np.ndarray, sides: _Sides) -> np.ndarray:
    """Sum what the first ``count`` present boxes reach, each taking the best true box left: ``[B]``."""
    total, images = np.zeros(len(iou)), np.arange(len(iou))
    if not iou.shape[1]:
        return total
    free = sides.objects.copy()  # [B, K]
    chooses = sides.present & (sides.present.cumsum(1) <= sides.counts[:, None])  # [B, S]
    for slot in range(iou.shape[2]):
        best = np.where(free, iou[:, :, slot], -1).argmax(1)  # [B], the first of equals
        total += np.where(chooses[:, slot], iou[images, best, slot], 0)
        free[images, best] &= ~chooses[:, slot]
    return total


class _Sides(NamedTuple):
    """Checked true and predicted boxes; what is absent or unknown is set to an empty box at the origin."""

    true: np.ndarray  # float64 [B, K, 4]
    counts: np.ndarray  # [B]
    objects: np.ndarray  # bool [B, K]: which true boxes are objects
    unknown: np.ndarray  # bool [B]: an object's box is NaN or without area, so that nothing can be said
    predicted: np.ndarray  # float64 [B, S, 4]
    present: np.ndarray  # bool [B, S]

    @classmethod
    def of(cls, true_boxes: Array, true_count: Array, predicted_boxes: Array, present: Array) -> _Sides:
        true, count = checked_truth(true_boxes, true_count)
        b, k, _ = true.shape
        expect("predicted_boxes", predicted_boxes, (b, None, 4), "f")
        expect("predicted_present", present, (b, predicted_boxes.shape[1]), "b")
        chosen: np.ndarray = to_numpy(present)
        predicted = to_numpy(predicted_boxes).astype(np.float64)
        predicted = np.where(chosen[..., None], predicted, 0)
        if np.isnan(predicted).any():
            raise ValueError("predicted_boxes: expected finite corners where present, got NaN or infinity.")
        check_corners("predicted_boxes", predicted)
        objects = np.arange(k) < count[:, None]
        known = np.asarray((true[..., 2:] > true[..., :2]).all(-1))  # [B, K], False for NaN
        unknown: np.ndarray = np.any(objects & ~known, axis=1)
        return cls(
            np.where((objects & known)[..., None], true, 0), count, objects, unknown, predicted, chosen
        )

    def iou(self, widen: float = 0.0, inclusive: float = 0.0) -> np.ndarray:
        """Return the IoU of each object with each present box, else 0: ``[B, K, S]``."""
        margin = widen * np.array([-1, -1, 1, 1])
        iou = pairwise_iou(self.true, self.predicted + margin, inclusive)
        return np.where(self.objects[:, :, None] & self.present[:, None, :], np.nan_to_num(iou), 0)

    def mean_over_objects(self, total: np.ndarray) -> np.ndarray:
        """Return ``total [B]`` over the number of objects; NaN without any, or with an unknown one."""
        nothing = np.full(len(total), np.nan)
        return np.divide(total, self.counts, out=nothing, where=(self.counts > 0) & ~self.unknown)


def pairwise_iou(true: np.ndarray, predicted: np.ndarray, inclusive: float = 0.0) -> np.ndarray:
    """Return the IoU ``[B, K, S]`` of float64 boxes ``[B, K, 4]`` and ``[B, S, 4]``; NaN for 0/0."""
    t, p = true[:, :, None], predicted[:, None]  # [B, K, 1, 4], [B, 1, S, 4]
    shared = _area(np.maximum(t[..., :2], p[..., :2]), np.minimum(t[..., 2:], p[..., 2:]), inclusive)
    union = _area(t[..., :2], t[..., 2:], inclusive) + _area(p[..., :2], p[..., 2:], inclusive) - shared
    return np.divide(shared, union, out=np.full(union.shape, np.nan), where=union > 0)


def _area(low: np.ndarray, high: np.ndarray, inclusive: float) -> np.ndarray:
    return np.clip(high - low + inclusive, 0, None).prod(-1)


def checked_truth(true_boxes: Array, true_count: Array) -> tuple[np.ndarray, np.ndarray]:
    """Return float64 boxes ``[B, K, 4]``, NaN beyond the count, and int64 counts ``[B]``; raise ``ValueError``."""
    expect("true_boxes", true_boxes, (None, None, 4), "f")
    b, k, _ = true_boxes.shape
    expect("true_count", true_count, (b,), "iu")
    count = to_numpy(true_count).astype(np.int64)
    if b and not 0 <= count.min() <= count.max() <= k:
        raise ValueError(f"true_count: expected 0..{k}, got {count.min()}..{count.max()}.")
    objects = np.arange(k) < count[:, None]  # [B, K]
    boxes = np.where(objects[..., None], to_numpy(true_boxes).astype(np.float64), np.nan)
    check_corners("true_boxes", boxes)
    return boxes, count


def check_corners(name: str, boxes: np.ndarray) -> None:
    """Raise ``ValueError`` if a corner is infinite or two are swapped; NaN is let through."""
    if np.isinf(boxes).any():
        raise ValueError(f"{name}: expected finite corners (NaN for an unknown box), got infinity.")
    if (swapped := boxes[..., 2:] < boxes[..., :2]).any():
        worst = boxes[swapped.any(-1)][0].tolist()
        raise ValueError(f"{name}: expected x0 <= x1 and y0 <= y1, got {worst}; is it x, y, width, height?")
