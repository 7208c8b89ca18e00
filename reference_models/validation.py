"""What a model is measured on while it learns: the first scenes of a split, with their truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from multiobj_data.loading import SceneSource
from multiobj_data.scenes import Prediction, Scenes
from reference_models.base import SceneModel

COUNTED = 1000
"""On how many scenes counts are compared."""

SEGMENTED = 200
"""On how many scenes masks are compared."""


@dataclass(frozen=True)
class LiveScores:
    """What was measured; ``None`` is what the model, or the validation, has not.

    Attributes:
        count_accuracy: Share of scenes whose objects are counted right.
        ari_fg: Mean ARI-FG, of a model that segments and does not count.
        stuck: The number of objects, none or the most there can be, that is seen in every scene, wrongly.
    """

    count_accuracy: float | None = None
    ari_fg: float | None = None
    stuck: int | None = None


class Validation:
    """The first scenes of a split.

    Args:
        source: The split.
        ari_fg: ARI-FG of each scene, such as ``metrics.METRICS["ari_fg"].function``: `metrics` is not imported by
            models. Without it, models that do not count are not measured.
    """

    def __init__(
        self, source: SceneSource, ari_fg: Callable[[Scenes, Prediction], np.ndarray] | None = None
    ) -> None:
        self._ari_fg = ari_fg
        self._counted = source.scenes(np.arange(min(len(source), COUNTED)))
        self._segmented = source.scenes(np.arange(min(len(source), SEGMENTED)))

    def score(self, model: SceneModel) -> LiveScores:
        """Measure the model: its counts or, if it has none, its masks."""
        look = model.predict(self._counted.image[:1])
        if look.count is not None:
            return self._count(model)
        if look.masks is None or self._ari_fg is None:
            return LiveScores()
        scores = self._ari_fg(self._segmented, model.predict(self._segmented.image))
        known = scores[~np.isnan(scores)]  # a scene without objects has none
        return LiveScores(ari_fg=float(known.mean()) if len(known) else None)

    def _count(self, model: SceneModel) -> LiveScores:
        prediction, truth = model.predict(self._counted.image), self._counted.count
        full = None if prediction.presence is None else prediction.presence.shape[1]
        stuck = [n for n in (0, full) if np.all(prediction.count == n) and not np.all(truth == n)]
        accuracy = float(np.mean(prediction.count == truth))
        return LiveScores(count_accuracy=accuracy, stuck=stuck[0] if stuck else None)
