"""The worst and the best scenes of an evaluation, kept in bounded memory for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from metrics.table import PRESENT, MetricSpec
from multiobj_data.scenes import Prediction, Scenes

RANKING = (
    "box_miou",
    "msc_fg",
    "ari_fg",
    "squared_error",
    "mse",
    "count_absolute_error",
    "log_likelihood_nats",
)
"""Scenes are ranked by the first of these that the model allows."""


@dataclass(frozen=True, eq=False)
class Example:
    """One scene with the model's answer.

    Attributes:
        index: The scene's index in its split.
        scores: Metric -> value; NaN where skipped.
        image: uint8 ``[H, W, C]``.
        true_boxes: ``[count, 4]``.
        predicted_boxes: ``[inferred, 4]``, or ``None``.
        reconstruction: float ``[H, W, C]`` in [0, 1], or ``None``.
        true_count: Number of objects.
        predicted_count: Inferred number of objects, or ``None``.
        true_labels: Visible segments, uint8 ``[H, W]``, 0 for all background; ``None`` without predicted ones.
        predicted_labels: The slot of each pixel, likewise; ``None`` if the model gives no masks.
    """

    index: int
    scores: dict[str, float]
    image: np.ndarray
    true_boxes: np.ndarray
    predicted_boxes: np.ndarray | None
    reconstruction: np.ndarray | None
    true_count: int
    predicted_count: int | None
    true_labels: np.ndarray | None = None
    predicted_labels: np.ndarray | None = None


class Gallery:
    """Keeps the ``size`` worst and the ``size`` best scenes seen so far; of equals, the later is better."""

    def __init__(self, scored: Mapping[str, MetricSpec], size: int) -> None:
        self.size = size
        self.ranked_by = next((name for name in RANKING if name in scored), None)
        self._sign = 1 if self.ranked_by and scored[self.ranked_by].higher_is_better else -1
        self._worst: dict[tuple[float, int], Example] = {}
        self._best: dict[tuple[float, int], Example] = {}

    def update(
        self, index: np.ndarray, scores: Mapping[str, np.ndarray], scenes: Scenes, prediction: Prediction
    ) -> None:
        """Consider one batch: arrays ``[B]`` of scene indices and scores, the scenes and the answers."""
        if self.ranked_by is None:
            return
        goodness = self._sign * scores[self.ranked_by]  # [B]
        _, rows = np.unique(index, return_index=True)
        rows = rows[~np.isnan(goodness[rows])]
        rows = rows[np.argsort(goodness[rows], kind="stable")]  # worst first, then by index
        for end, best_first in ((self._worst, False), (self._best, True)):
            for row in rows[:: -1 if best_first else 1][: self.size]:
                key = float(goodness[row]), int(index[row])
                end[key] = _example(row, index, scores, scenes, prediction)
            for beaten in sorted(end, reverse=best_first)[self.size :]:
                del end[beaten]

    def ends(self) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
        """Return the worst scenes, worst first, and the best of the others, best first."""
        worst = tuple(self._worst[key] for key in sorted(self._worst))
        best = tuple(self._best[key] for key in sorted(self._best.keys() - self._worst.keys(), reverse=True))
        return worst, best


def _example(
    row: int, index: np.ndarray, scores: Mapping[str, np.ndarray], scenes: Scenes, prediction: Prediction
) -> Example:
    """Copy one scene out of its batch, so that the batch can be freed."""
    boxes = None
    if prediction.boxes is not None and prediction.presence is not None:
        boxes = prediction.boxes[row][prediction.presence[row] >= PRESENT]
    true_labels = predicted_labels = None
    if prediction.masks is not None:
        true_labels, predicted_labels = _label_maps(scenes, prediction, row)
    return Example(
        index=int(index[row]),
        scores={name: float(values[row]) for name, values in scores.items()},
        image=scenes.image[row].copy(),
        true_boxes=scenes.boxes[row, : scenes.count[row]].copy(),
        predicted_boxes=boxes,
        reconstruction=None if prediction.reconstruction is None else prediction.reconstruction[row].copy(),
        true_count=int(scenes.count[row]),
        predicted_count=None if prediction.count is None else int(prediction.count[row]),
        true_labels=true_labels,
        predicted_labels=predicted_labels,
    )


def _label_maps(scenes: Scenes, prediction: Prediction, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Return true and predicted label maps, uint8 ``[H, W]``: 0 is background, matched segments share a label.

    Slots take the label of the segment that they share most pixels with, the largest overlap first; a model that names
    no background slots has the one that suits the background best. Slots left over get labels of their own.
    """
    true = np.maximum(scenes.segments[row].astype(np.int64) - scenes.background_segments + 1, 0)
    slot = prediction.masks[row].argmax(0)
    objects, slots = int(true.max()) + 1, prediction.masks.shape[1]
    shared = np.bincount((true * slots + slot).ravel(), minlength=objects * slots).reshape(objects, slots)
    label = np.full(slots, -1)
    label[list(prediction.background_slots)] = 0
    taken = {0} if prediction.background_slots else set()
    for place in np.argsort(-shared, axis=None, kind="stable")[: np.count_nonzero(shared)]:
        segment, number = divmod(int(place), slots)
        if label[number] < 0 and segment not in taken:
            label[number] = segment
            taken.add(segment)
    left = np.flatnonzero(label < 0)
    label[left] = 1 + (objects - 1 + np.arange(len(left))) % 255
    return true.astype(np.uint8), label[slot].astype(np.uint8)
