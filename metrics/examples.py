"""The worst and the best scenes of an evaluation, kept in bounded memory for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from metrics.table import PRESENT, MetricSpec
from multiobj_data.scenes import Prediction, Scenes

RANKING = ("box_miou", "squared_error", "mse", "count_absolute_error", "log_likelihood_nats")
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
    """

    index: int
    scores: dict[str, float]
    image: np.ndarray
    true_boxes: np.ndarray
    predicted_boxes: np.ndarray | None
    reconstruction: np.ndarray | None
    true_count: int
    predicted_count: int | None


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
    return Example(
        index=int(index[row]),
        scores={name: float(values[row]) for name, values in scores.items()},
        image=scenes.image[row].copy(),
        true_boxes=scenes.boxes[row, : scenes.count[row]].copy(),
        predicted_boxes=boxes,
        reconstruction=None if prediction.reconstruction is None else prediction.reconstruction[row].copy(),
        true_count=int(scenes.count[row]),
        predicted_count=None if prediction.count is None else int(prediction.count[row]),
    )
