"""Evaluate a model or a file of predictions on scenes: one pass, one value an image and metric.

Models are given images only. Whatever they answer is checked against the images before it is scored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from metrics.counting import count_confusion
from metrics.environment import environment
from metrics.evaluation import Evaluation, Summary
from metrics.examples import Gallery
from metrics.running import Mean
from metrics.table import PRESENT, MetricSpec, find_metrics, with_count
from multiobj_data.arrays import to_numpy
from multiobj_data.errors import DataError, UsageError
from multiobj_data.scenes import Prediction, PredictionError, Scenes


def evaluate(
    predict: Any,
    batches: Iterable[tuple[np.ndarray, Scenes]],
    *,
    metrics: Sequence[str] | None = None,
    model: str = "",
    dataset: Mapping[str, Any] | None = None,
    protocol: Mapping[str, Any] | None = None,
    examples: int = 8,
    on_progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Score predictions for every scene; scenes that come twice count once.

    Args:
        predict: An object with ``predict(images)``, a callable ``images -> Prediction`` (images are uint8
            ``[B, H, W, C]``), or an object with ``predict_indices(indices)`` such as
            `multiobj_data.predictions.PredictionFile`. Images are a copy: a model may write on them.
        batches: Pairs of scene indices, whole numbers ``[B]``, and `Scenes`.
        metrics: Names as in `metrics.table.find_metrics`; all built-in ones by default. One that needs what
            the model does not give ends up in ``not_available`` with the reason.
        model: What messages and reports call the model.
        dataset: What reports say about the data; JSON values.
        protocol: Further facts to report about this run (split, limit, ...); JSON values.
        examples: How many of the worst and of the best scenes to keep for the report.
        on_progress: Called after each batch with the number of its scenes.

    Raises:
        UsageError: If ``predict`` or a metric's name is not usable.
        DataError: If there is no scene, or an answer does not fit the images; the message names the model.
    """
    answer = _answerer(predict)
    run = _Run(f"model {model!r}" if model else "the model", find_metrics(metrics), examples)
    for indices, scenes in batches:
        try:
            answered = answer(indices, scenes)
        except PredictionError as error:
            raise DataError(f"{run.who}: {error}") from error
        run.add(to_numpy(indices), scenes, answered)
        if on_progress is not None:
            on_progress(len(scenes))
    return run.finish(model, dict(dataset or {}), dict(protocol or {}))


def _answerer(predict: Any) -> Callable[[np.ndarray, Scenes], Any]:
    if hasattr(predict, "predict_indices"):
        return lambda indices, scenes: predict.predict_indices(indices)
    if hasattr(predict, "predict"):
        return lambda indices, scenes: predict.predict(scenes.image.copy())
    if callable(predict):
        return lambda indices, scenes: predict(scenes.image.copy())
    raise UsageError(
        f"evaluate: expected a model with predict(images), or a function, got {type(predict).__name__}."
    )


@dataclass(frozen=True)
class _Form:
    """What all batches of one evaluation have in common."""

    image_shape: tuple[int, ...]
    fields: tuple[str, ...]
    likelihood_kind: str | None

    def __str__(self) -> str:
        kind = f" ({self.likelihood_kind})" if self.likelihood_kind else ""
        return f"images {list(self.image_shape)} answered by {', '.join(self.fields)}{kind}"


class _Run:
    """What one evaluation has seen so far."""

    def __init__(self, who: str, specs: dict[str, MetricSpec], examples: int) -> None:
        self.who, self.specs, self.examples = who, specs, examples
        self.form: _Form | None = None
        self.scored: dict[str, MetricSpec] = {}
        self.not_available: dict[str, str] = {}
        self.columns: dict[str, list[np.ndarray]] = defaultdict(list)

    def add(self, indices: np.ndarray, scenes: Scenes, answered: Any) -> None:
        """Check and score one batch."""
        _check_indices(indices, scenes)
        _check_answer(self.who, answered, scenes.image.shape)
        self._check_form(answered, scenes)
        prediction = with_count(_as_numpy(answered))
        columns = {"index": indices.astype(np.int64), "true_count": scenes.count.astype(np.int64)}
        if prediction.count is not None:
            columns["predicted_count"] = prediction.count.astype(np.int64)
        scores = {name: self._score(name, spec, scenes, prediction) for name, spec in self.scored.items()}
        for name, values in (columns | scores).items():
            self.columns[name].append(values)
        self.gallery.update(columns["index"], scores, scenes, prediction)

    def _check_form(self, answered: Prediction, scenes: Scenes) -> None:
        """Settle at the first batch which metrics exist; later batches must look like the first."""
        form = _Form(scenes.image.shape[1:], tuple(answered.arrays()), answered.likelihood_kind)
        if self.form is None:
            self.form = form
            for name, spec in self.specs.items():
                if missing := spec.missing(form.fields):
                    self.not_available[name] = f"model gives no {' and no '.join(missing)}"
                else:
                    self.scored[name] = spec
            self.gallery = Gallery(self.scored, self.examples)
        elif form != self.form:
            raise DataError(f"{self.who}: expected every batch like the first ({self.form}), got {form}.")

    def _score(self, name: str, spec: MetricSpec, scenes: Scenes, prediction: Prediction) -> np.ndarray:
        try:
            values = to_numpy(spec.function(scenes, prediction)).astype(np.float64)
        except ValueError as error:
            raise DataError(f"{self.who}, metric {name}: {error}") from error
        if values.shape != (len(scenes),):
            raise DataError(
                f"metric {name}: expected {len(scenes)} values, one an image, got {values.shape}."
            )
        if np.isinf(values).any():
            raise DataError(f"{self.who}, metric {name}: got an infinite value, which no mean can hold.")
        return values

    def finish(self, model: str, dataset: dict[str, Any], protocol: dict[str, Any]) -> Evaluation:
        """Drop repeated scenes and sum up."""
        if self.form is None or not any(map(len, self.columns["index"])):
            raise DataError("evaluate: expected at least one scene, got none; is the split empty?")
        joined = {name: np.concatenate(parts) for name, parts in self.columns.items()}
        _, first = np.unique(joined["index"], return_index=True)
        columns = {name: values[first] for name, values in joined.items()}
        facts = self._facts(self.form, columns["index"], len(joined["index"]))
        if twice := facts.keys() & protocol.keys():
            raise UsageError(f"protocol: {min(twice)!r} is filled in by evaluate; use another name.")
        worst, best = self.gallery.ends()
        return Evaluation(
            model=model,
            dataset=dataset,
            protocol=protocol | facts,
            metrics=self._means(columns, np.ones(len(first), bool)),
            not_available=self.not_available,
            by_count={
                int(count): self._means(columns, columns["true_count"] == count)
                for count in np.unique(columns["true_count"])
            },
            confusion=self._confusion(columns),
            likelihood_kind=self.form.likelihood_kind,
            environment=environment(),
            columns=columns,
            ranked_by=self.gallery.ranked_by,
            worst=worst,
            best=best,
        )

    def _means(self, columns: dict[str, np.ndarray], chosen: np.ndarray) -> dict[str, Summary]:
        summaries: dict[str, Summary] = {}
        for name in self.scored:
            mean = Mean()
            mean.update(columns[name][chosen])
            summaries[name] = mean.summary()
        return summaries

    def _confusion(self, columns: dict[str, np.ndarray]) -> dict[str, list] | None:
        if "predicted_count" not in columns:
            return None
        try:
            table = count_confusion(columns["true_count"], columns["predicted_count"])
        except ValueError as error:
            raise DataError(f"{self.who}: {error}") from error
        rows, inferred = table.shape
        return {"true": list(range(rows)), "predicted": list(range(inferred)), "table": table.tolist()}

    def _facts(self, form: _Form, index: np.ndarray, seen: int) -> dict[str, Any]:
        counts = {"count": "count", "presence": f"slots with presence >= {PRESENT}"}
        return {
            "images": len(index),
            "repeated_images_dropped": seen - len(index),
            "index_range": [int(index[0]), int(index[-1])],
            "image_shape": list(form.image_shape),
            "count_from": next((rule for field, rule in counts.items() if field in form.fields), None),
            "definitions": {name: spec.definition() for name, spec in self.specs.items()},
        }


def _check_indices(indices: np.ndarray, scenes: Scenes) -> None:
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


def _as_numpy(prediction: Prediction) -> Prediction:
    arrays: dict[str, Any] = {name: to_numpy(array) for name, array in prediction.arrays().items()}
    return replace(prediction, **arrays)
