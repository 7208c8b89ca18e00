"""Baselines beside the model: what needs no training scores on the same images, by the same metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metrics.evaluation.answers import Answerer, answerer, as_numpy, ask, score
from metrics.evaluation.baselines import BASELINES, Truth
from metrics.running import Mean
from metrics.table import MetricSpec, with_count
from multiobj_data.errors import MobjError, UsageError, did_you_mean
from multiobj_data.scenes import Scenes

TRUTH = "truth"
BASELINE_NAMES = (*BASELINES, TRUTH)
"""Every baseline; the truth last."""

BASELINE_IMAGES = 320
"""How many images the baselines answer beside a model, so that they never cost more than a moment."""


def baseline_predictor(name: str) -> Any:
    """Return what answers as the baseline of this name, `Truth` for ``"truth"``.

    Raises:
        UsageError: There is none.
    """
    if name not in BASELINE_NAMES:
        raise UsageError(f"no baseline named {name!r}.{did_you_mean(name, BASELINE_NAMES)}")
    return Truth() if name == TRUTH else BASELINES[name]


@dataclass(frozen=True)
class BaselineScores:
    """What baselines score.

    Attributes:
        images: On how many images, the first ones that the model was given.
        model: Metric -> summary of the model on these images.
        metrics: Baseline -> metric -> summary; only metrics that the model has, too.
    """

    images: int
    model: Mapping[str, Mapping[str, float | int]]
    metrics: Mapping[str, Mapping[str, Mapping[str, float | int]]]

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {"images": self.images, "model": self.model, "baselines": self.metrics}


class Baselines:
    """Scores baselines on the first images of a run, batch by batch.

    Args:
        names: Which.
        most: On how many images.
    """

    def __init__(self, names: Sequence[str], most: int) -> None:
        self._answerers: dict[str, Answerer] = {name: answerer(baseline_predictor(name)) for name in names}
        self._most = most
        self._seen: list[int] = []
        self._columns: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in names}

    def update(self, indices: np.ndarray, scenes: Scenes, specs: Mapping[str, MetricSpec]) -> None:
        """Score those images of a batch that are new, as long as there are too few."""
        if not self._answerers or not specs or len(self._seen) >= self._most:
            return
        _, first = np.unique(indices, return_index=True)
        new = np.sort(first)[~np.isin(indices[np.sort(first)], self._seen)][: self._most - len(self._seen)]
        if not len(new):
            return
        self._seen += indices[new].tolist()
        for name, answer in self._answerers.items():
            self._score(name, answer, indices[new], scenes[new], specs)

    def _score(
        self,
        name: str,
        answer: Answerer,
        indices: np.ndarray,
        scenes: Scenes,
        specs: Mapping[str, MetricSpec],
    ) -> None:
        who, columns = f"baseline {name}", self._columns[name]
        prediction = with_count(as_numpy(ask(who, answer, indices, scenes)))
        for metric, spec in specs.items():
            if spec.missing(tuple(prediction.arrays())):
                continue
            try:
                values = score(who, metric, spec, scenes, prediction)
            except MobjError:  # a metric of the user's own need not understand every answer
                values = np.full(len(scenes), np.nan)
            columns.setdefault(metric, []).append(values)

    def finish(self, columns: Mapping[str, np.ndarray]) -> BaselineScores | None:
        """Sum up; ``columns`` are the model's, by increasing index. ``None`` if nothing was scored."""
        shared = {metric for parts in self._columns.values() for metric in parts}
        if not shared:
            return None
        rows = np.searchsorted(columns["index"], np.sort(self._seen))
        model = {name: _summary([columns[name][rows]]) for name in columns if name in shared}
        metrics = {
            name: {metric: _summary(parts[metric]) for metric in model if metric in parts}
            for name, parts in self._columns.items()
        }
        return BaselineScores(len(self._seen), model, metrics)


def _summary(parts: Sequence[np.ndarray]) -> dict[str, float | int]:
    mean = Mean()
    mean.update(np.concatenate(parts))
    return mean.summary()
