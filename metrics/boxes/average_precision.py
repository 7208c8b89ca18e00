"""Average precision of boxes: how well a model's confidence separates right boxes from wrong ones, over a set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from metrics.boxes.scores import check_corners, checked_truth, pairwise_iou
from metrics.libraries import is_whole
from multiobj_data.arrays import Array, like, to_numpy
from multiobj_data.scenes import expect

COCO_THRESHOLDS = tuple(0.5 + 0.05 * step for step in range(10))
"""IoUs from which a box counts as found: .50, .55, ..., .95."""

Interpolation = Literal["coco", "all-point"]


def average_precision(
    true_boxes: Array,
    true_count: Array,
    predicted_boxes: Array,
    confidence: Array,
    *,
    thresholds: Sequence[float] = COCO_THRESHOLDS,
    interpolation: Interpolation = "coco",
    most: int = 100,
) -> Array:
    """Return the average precision of one set of images, whatever the objects' classes: see `AveragePrecision`.

    Returns:
        float64 ``[T]``, one value a threshold; in the library and on the device of ``predicted_boxes``.
    """
    precision = AveragePrecision(thresholds=thresholds, interpolation=interpolation, most=most)
    precision.update(true_boxes, true_count, predicted_boxes, confidence)
    return like(precision.per_threshold(), predicted_boxes)


class AveragePrecision:
    """Average precision over a set of images, batch by batch.

    In each image the predicted boxes, most confident first, take the true box with the largest IoU among those
    still free, if that is at least the threshold: such a box is right, any other wrong. Over all boxes of
    the set, by falling confidence, precision (made monotone) is averaged over recall: COCO's rules (Lin et al.,
    "Microsoft COCO", ECCV 2014) without classes, crowds and size ranges.

    Differs from COCO: boxes of equal confidence enter together, as no threshold can part them; COCO takes them by
    image, so that its figure depends on the order of images wherever confidences saturate. So results here depend
    neither on order nor on how images were spread over batches or workers.

    Args:
        thresholds: IoUs in (0, 1] from which a box is right.
        interpolation: ``"coco"`` reads precision at the 101 recalls 0, .01, ..., 1; ``"all-point"`` takes
            the area under it (Pascal VOC from 2010).
        most: How many boxes of an image count, the most confident; COCO's 100.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        *,
        thresholds: Sequence[float] = COCO_THRESHOLDS,
        interpolation: Interpolation = "coco",
        most: int = 100,
    ) -> None:
        if isinstance(thresholds, str) or not isinstance(thresholds, Sequence | np.ndarray):
            raise ValueError(f"thresholds: expected a list of IoUs, got {thresholds!r}.")
        self.thresholds = np.asarray(thresholds, dtype=np.float64)
        if self.thresholds.ndim != 1 or not len(self.thresholds):
            raise ValueError(f"thresholds: expected one IoU or more, got {thresholds!r}.")
        if not ((self.thresholds > 0) & (self.thresholds <= 1)).all():
            raise ValueError(f"thresholds: expected IoUs in (0, 1], got {thresholds!r}.")
        if interpolation not in get_args(Interpolation):
            raise ValueError(f"interpolation: expected 'coco' or 'all-point', got {interpolation!r}.")
        if not is_whole(most, 1):
            raise ValueError(f"most: expected 1 or more, got {most!r}.")
        self.interpolation, self.most = interpolation, most
        self._batches: list[_Batch] = []

    def update(
        self,
        true_boxes: Array,
        true_count: Array,
        predicted_boxes: Array,
        confidence: Array,
        ids: Array | None = None,
    ) -> None:
        """Add a batch.

        Args:
            true_boxes: Floats ``[B, K, 4]``; an image's first ``true_count`` boxes are its objects. An image
                with an unknown one (NaN, or without area) is skipped.
            true_count: Whole numbers ``[B]``.
            predicted_boxes: Floats ``[B, S, 4]`` in pixels; one with a NaN corner is no box.
            confidence: Floats ``[B, S]``: any scale, e.g. presence; also of slots below 0.5.
            ids: Whole numbers ``[B]``, one an image, in every update or in none; an image counts once.

        Raises:
            ValueError: If shapes disagree, a corner is infinite or swapped, a box has no finite confidence, or ids
                come in some updates only.
        """
        true, count = checked_truth(true_boxes, true_count)
        b, k, _ = true.shape
        expect("predicted_boxes", predicted_boxes, (b, None, 4), "f")
        expect("confidence", confidence, (b, predicted_boxes.shape[1]), "f")
        if ids is not None:
            expect("ids", ids, (b,), "iu")
        if self._batches and (ids is None) != (self._batches[0].ids is None):
            raise ValueError("ids: expected in every update or in none.")
        boxes, score = to_numpy(predicted_boxes).astype(np.float64), to_numpy(confidence).astype(np.float64)
        check_corners("predicted_boxes", boxes)
        there = ~np.isnan(boxes).any(-1)  # [B, S]
        if not np.isfinite(score[there]).all():
            raise ValueError("confidence: expected finite values for all boxes, got NaN or infinity.")

        order = np.argsort(np.where(there, -score, np.inf), axis=1, kind="stable")[:, : self.most]
        boxes = np.take_along_axis(boxes, order[..., None], 1)
        score, there = np.take_along_axis(score, order, 1), np.take_along_axis(there, order, 1)
        objects = np.arange(k) < count[:, None]  # [B, K]
        skipped: np.ndarray = np.any(objects & ~(true[..., 2:] > true[..., :2]).all(-1), axis=1)  # [B]
        right = _right(np.nan_to_num(pairwise_iou(true, boxes)), objects, self.thresholds)  # [B, S, T]
        own = None if ids is None else to_numpy(ids).astype(np.int64)
        self._batches.append(_Batch(own, count, skipped, score, there, right))

    def merge(self, other: AveragePrecision) -> None:
        """Add everything that ``other`` has seen; it must have the same settings, and ids if this has them."""
        if other._settings() != self._settings():
            raise ValueError(
                f"merge: expected equal settings, got {self._settings()} and {other._settings()}."
            )
        with_ids = {batch.ids is not None for batch in (*self._batches, *other._batches)}
        if len(with_ids) > 1:
            raise ValueError("merge: expected ids on both sides or on neither.")
        self._batches += other._batches

    def gather(self, group: object = None) -> AveragePrecision:
        """Return what all processes of a ``torch.distributed`` group have seen, in each; all of them must call it.

        Without a process group it is a copy.
        """
        from metrics.gathering import gather_objects

        whole = AveragePrecision(
            thresholds=self.thresholds.tolist(), interpolation=self.interpolation, most=self.most
        )
        whole._batches = [batch for part in gather_objects(self._batches, group) for batch in part]
        return whole

    def per_threshold(self) -> np.ndarray:
        """Return the average precision at each threshold, float64 ``[T]``; NaN if the images hold no object."""
        kept = self._kept()
        objects = sum(int(batch.counts[rows].sum()) for batch, rows in kept)
        if not objects:
            return np.full(len(self.thresholds), np.nan)
        score = np.concatenate([batch.score[rows][batch.there[rows]] for batch, rows in kept])  # [D]
        right = np.concatenate([batch.right[rows][batch.there[rows]] for batch, rows in kept])  # [D, T]
        order = np.argsort(-score, kind="stable")
        last = np.append(np.diff(score[order]) != 0, True)[: len(order)]  # the last of equal confidence
        hits = right[order].cumsum(0)[last]  # [L, T]
        boxes = np.arange(1, len(order) + 1)[last]  # [L]
        precision, recall = hits / boxes[:, None], hits / objects
        return np.array([self._area(p, r) for p, r in zip(precision.T, recall.T, strict=True)])

    def summary(self) -> dict[str, float | int]:
        """Return ``mean`` over thresholds, ``objects``, ``n`` (images scored) and ``skipped`` images."""
        kept = self._kept()
        n = sum(int(rows.sum()) for _, rows in kept)
        return {
            "mean": float(self.per_threshold().mean()),
            "objects": sum(int(batch.counts[rows].sum()) for batch, rows in kept),
            "n": n,
            "skipped": sum(int(rows.sum()) for rows in self._once()) - n,
        }

    def _area(self, precision: np.ndarray, recall: np.ndarray) -> float:
        """Return the mean over recall of the best precision at that recall or a higher one."""
        best = np.maximum.accumulate(precision[::-1])[::-1]
        if self.interpolation == "all-point":
            return float((np.diff(recall, prepend=0) * best).sum())
        wanted = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
        return float(np.append(best, 0)[np.minimum(wanted, len(best))].mean())  # 0 where never reached

    def _once(self) -> list[np.ndarray]:
        """Return which images of each batch to count, bool ``[B]``: the first of each id."""
        sizes = [len(batch.counts) for batch in self._batches]
        first = np.ones(sum(sizes), dtype=bool)
        ids = [batch.ids for batch in self._batches if batch.ids is not None]
        if ids:
            first[:] = False
            first[np.unique(np.concatenate(ids), return_index=True)[1]] = True
        return np.split(first, np.cumsum(sizes)[:-1]) if sizes else []

    def _kept(self) -> list[tuple[_Batch, np.ndarray]]:
        return [
            (batch, once & ~batch.skipped) for batch, once in zip(self._batches, self._once(), strict=True)
        ]

    def _settings(self) -> tuple[tuple[float, ...], str, int]:
        return tuple(self.thresholds.tolist()), self.interpolation, self.most


class _Batch(NamedTuple):
    """What one batch adds: its images, and which of their boxes are right, most confident first."""

    ids: np.ndarray | None  # [B]
    counts: np.ndarray  # [B]
    skipped: np.ndarray  # bool [B]
    score: np.ndarray  # [B, S]
    there: np.ndarray  # bool [B, S]
    right: np.ndarray  # bool [B, S, T]


def _right(iou: np.ndarray, objects: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Tell which boxes, most confident first, find an object that is free: bool ``[B, S, T]``.

    Args:
        iou: ``[B, K, S]``, by falling confidence.
        objects: bool ``[B, K]``.
        thresholds: ``[T]``.
    """
    b, k, s = iou.shape
    right = np.zeros((b, s, len(thresholds)), dtype=bool)
    if not k:
        return right
    free = np.repeat(objects[:, None], len(thresholds), 1)  # [B, T, K]
    enough = np.minimum(thresholds, 1 - 1e-10)[:, None]  # [T, 1]; COCO's guard for a threshold of 1
    image, level = np.ogrid[:b, : len(thresholds)]
    for box in range(s):
        overlap = iou[:, None, :, box]  # [B, 1, K]
        candidates = np.where(free & (overlap >= enough), overlap, -1)  # [B, T, K]
        best = k - 1 - candidates[..., ::-1].argmax(-1)  # [B, T], the last of equals, as COCO has it
        found = candidates[image, level, best] >= 0
        right[:, box] = found
        free[image, level, best] &= ~found
    return right
