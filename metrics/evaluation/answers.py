"""What a model answers: asked for by images alone, checked against them, and scored by one metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from metrics.evaluation.baselines import Truth
from metrics.table import MetricSpec
from multiobj_data.arrays import to_numpy
from multiobj_data.errors import DataError, UsageError
from multiobj_data.scenes import Prediction, PredictionError, Scenes

Answerer = Callable[[np.ndarray, Scenes], Any]


def answerer(predict: Any) -> Answerer:
    """Return ``(indices, scenes) -> answer`` for anything that predicts.

    Only `metrics.evaluation.baselines.Truth` sees the truth.

    Raises:
        UsageError: If it cannot predict.
    """
    if isinstance(predict, Truth):
        return lambda indices, scenes: predict.predict_scenes(scenes)
    if hasattr(predict, "predict_indices"):
        return lambda indices, scenes: predict.predict_indices(indices)
    if hasattr(predict, "predict"):
        return lambda indices, scenes: predict.predict(scenes.image.copy())
    if callable(predict):
        return lambda indices, scenes: predict(scenes.image.copy())
    raise UsageError(
        f"evaluate: expected a model with predict(images), or a function, got {type(predict).__name__}."
    )


def ask(who: str, answer: Answerer, indices: np.ndarray, scenes: Scenes) -> Prediction:
    """Return the answer for one batch.

    Raises:
        DataError: It is no `Prediction`, or does not fit the images; the message begins with ``who``.
    """
    try:
        answered = answer(indices, scenes)
    except PredictionError as error:
        raise DataError(f"{who}: {error}") from error
    _check_answer(who, answered, scenes.image.shape)
    return answered


def check_indices(indices: np.ndarray, scenes: Scenes) -> None:
    """Raise ``DataError`` unless there is one whole-number index a scene."""
    if indices.shape != (len(scenes),) or indices.dtype.kind not in "iu":
        raise DataError(
            f"batches: expected one whole-number index a scene ({len(scenes)}), got {indices.dtype} "
            f"of shape {indices.shape}."
        )


def _check_answer(who: str, answered: Any, images: tuple[int, ...]) -> None:
    """Raise unless ``answered`` is a prediction for images of this shape ``[B, H, W, C]``."""
    if not isinstance(answered, Prediction):
        raise DataError(f"{who}: expected predict to return a Prediction, got {type(answered).__name__}.")
    if len(answered) != images[0]:
        raise DataError(f"{who}: expected answers for {images[0]} images, got {len(answered)}.")
    pictures = {"reconstruction": answered.reconstruction, "masks": answered.masks}
    for name, array in pictures.items():
        if array is None:
            continue
        got = tuple(array.shape)
        if got != images if name == "reconstruction" else got[2:] != images[1:3]:
            raise DataError(
                f"{who}: {name} {list(got)} does not fit images {list(images)}; was it made for another size?"
            )


def as_numpy(prediction: Prediction) -> Prediction:
    """Return the prediction with NumPy arrays."""
    arrays: dict[str, Any] = {name: to_numpy(array) for name, array in prediction.arrays().items()}
    return replace(prediction, **arrays)


def score(who: str, name: str, spec: MetricSpec, scenes: Scenes, prediction: Prediction) -> np.ndarray:
    """Return one metric of one batch, float64 ``[B]``; NaN is skipped later.

    Raises:
        DataError: The prediction cannot be scored, or the metric's values are no floats ``[B]``, or infinite.
        MobjError: The metric's code raises anything else but ``ValueError``.
    """
    from multiobj_data.plugins import foreign_code

    with foreign_code(f"metric {name}"):  # it may be anyone's
        try:
            values = to_numpy(spec.function(scenes, prediction)).astype(np.float64)
        except ValueError as error:
            raise DataError(f"{who}, metric {name}: {error}") from error
    if values.shape != (len(scenes),):
        raise DataError(f"metric {name}: expected {len(scenes)} values, one an image, got {values.shape}.")
    if np.isinf(values).any():
        raise DataError(f"{who}, metric {name}: got an infinite value, which no mean can hold.")
    return values
