"""Evaluate a model or a file of predictions on scenes: one pass, one value an image and metric.

Models are given images only. Whatever they answer is checked against the images before it is scored.
"""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metrics.counting import count_confusion
from metrics.evaluation.answers import answerer, as_numpy, ask, check_indices, score
from metrics.evaluation.difficulty import DIFFICULTIES, difficulty
from metrics.evaluation.environment import environment
from metrics.evaluation.examples import Gallery
from metrics.evaluation.floors import BASELINE_IMAGES, Baselines
from metrics.evaluation.result import Evaluation, Summary, strict
from metrics.evaluation.stamp import protocol_stamp, scene_digests
from metrics.evaluation.suspicion import SuspiciousDataWarning, warn_if_mostly_empty
from metrics.running import Mean
from metrics.table import PRESENT, MetricSpec, find_metrics, with_count
from multiobj_data.arrays import to_numpy
from multiobj_data.errors import DataError, UsageError, did_you_mean
from multiobj_data.scenes import Prediction, Scenes

_FEWEST = 10  # images of which a share says anything
_FACTS = {
    "images", "repeated_images_dropped", "index_range", "image_shape", "count_from", "definitions", "convention",
    "interval",
}  # fmt: skip
_NOT_SCORES = ("index", "true_count", "predicted_count")


def evaluate(
    predict: Any,
    batches: Iterable[tuple[np.ndarray, Scenes]],
    *,
    metrics: Sequence[str] | None = None,
    convention: str | None = None,
    interval: float | None = None,
    baselines: Sequence[str] = (),
    baseline_images: int = BASELINE_IMAGES,
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
        convention: By whose rules to score where projects differ, one of `metrics.CONVENTIONS`.
        interval: Level of bootstrap intervals of the means, e.g. 0.95; ``None`` for none.
        baselines: Which of `metrics.evaluation.floors.BASELINE_NAMES` to score beside the model.
        baseline_images: On how many images, the first ones.
        model: What messages and reports call the model.
        dataset: What reports say about the data; JSON values.
        protocol: Further facts to report about this run (split, limit, ...); JSON values.
        examples: How many of the worst and of the best scenes to keep for the report.
        on_progress: Called after each batch with the number of its scenes.

    Warns:
        SuspiciousDataWarning: If most images hold no object; it is in ``Evaluation.warnings``, too.

    Raises:
        UsageError: If ``predict`` or a name is not usable.
        DataError: If there is no scene, or an answer does not fit the images; the message names the model.
        MobjError: If a metric's code raises something unexpected.
    """
    if interval is not None and not 0 < interval < 1:
        raise UsageError(f"interval: expected a level above 0 and below 1, e.g. 0.95, got {interval}.")
    answer = answerer(predict)
    specs, refused = _specs(metrics, convention)
    who = f"model {model!r}" if model else "the model"
    told = {"dataset": dict(dataset or {}), "protocol": dict(protocol or {})}
    _check_told(told)
    run = _Run(
        who, specs, refused, Baselines(_names("baselines", baselines), baseline_images), examples, interval
    )
    for indices, scenes in batches:
        if not len(scenes):
            continue
        indices = to_numpy(indices)
        check_indices(indices, scenes)
        run.add(indices, scenes, ask(run.who, answer, indices, scenes))
        if on_progress is not None:
            on_progress(len(scenes))
    return run.finish(model, **told, convention=convention)


def _names(what: str, names: Sequence[str]) -> Sequence[str]:
    if isinstance(names, str):
        raise UsageError(f"{what}: expected a list of names, got the text {names!r}; write [{names!r}].")
    return names


def _check_told(told: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise for facts that could not be reported, before anything is scored."""
    if twice := _FACTS & told["protocol"].keys():
        raise UsageError(f"protocol: {min(twice)!r} is filled in by evaluate; use another name.")
    for name, facts in told.items():
        try:
            json.dumps(strict(facts), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{name}: expected values that JSON can hold, got {error}.") from error


def _specs(
    names: Sequence[str] | None, convention: str | None
) -> tuple[dict[str, MetricSpec], dict[str, str]]:
    """Return the metrics by this convention, and why it has not the others.

    Raises:
        UsageError: A name is unknown, or the convention does not define a metric that was asked for by name.
    """
    from metrics.segmentation.conventions import CONVENTIONS

    if convention is not None and convention not in CONVENTIONS:
        raise UsageError(f"no convention {convention!r}.{did_you_mean(convention, CONVENTIONS)}")
    specs: dict[str, MetricSpec] = {}
    refused: dict[str, str] = {}
    for name, spec in find_metrics(None if names is None else _names("metrics", names)).items():
        if name in (*_NOT_SCORES, *DIFFICULTIES):
            raise UsageError(f"metric {name!r}: that is the name of a column of facts; use another.")
        try:
            specs[name] = spec.under(convention)
        except UsageError as error:
            if names is not None:
                raise
            refused[name] = str(error).rstrip(".")
    return specs, refused


@dataclass(frozen=True)
class _Form:
    """What all batches of one evaluation have in common."""

    image_shape: tuple[int, ...]
    fields: tuple[str, ...]
    likelihood_kind: str | None
    background_segments: int

    def __str__(self) -> str:
        kind = f" ({self.likelihood_kind})" if self.likelihood_kind else ""
        ground = f", {self.background_segments} background labels" if self.background_segments != 1 else ""
        return f"images {list(self.image_shape)} answered by {', '.join(self.fields)}{kind}{ground}"


class _Run:
    """What one evaluation has seen so far."""

    def __init__(
        self,
        who: str,
        specs: dict[str, MetricSpec],
        refused: dict[str, str],
        baselines: Baselines,
        examples: int,
        interval: float | None,
    ) -> None:
        self.who, self.specs, self.interval, self.baselines = who, specs, interval, baselines
        self.form: _Form | None = None
        self.scored: dict[str, MetricSpec] = {}
        self.not_available = dict(refused)
        self.gallery = Gallery({}, examples)
        self.columns: dict[str, list[np.ndarray]] = defaultdict(list)
        self.digests: list[np.ndarray] = []
        self.has_foreground: list[np.ndarray] = []

    def add(self, indices: np.ndarray, scenes: Scenes, answered: Prediction) -> None:
        """Score one batch."""
        self._check_form(answered, scenes)
        prediction = with_count(as_numpy(answered))
        columns = {"index": indices.astype(np.int64), "true_count": scenes.count.astype(np.int64)}
        if prediction.count is not None:
            columns["predicted_count"] = prediction.count.astype(np.int64)
        scores = {name: score(self.who, name, spec, scenes, prediction) for name, spec in self.scored.items()}
        hard = {name: values for name, values in difficulty(scenes).items() if name not in columns}
        for name, values in (hard | columns | scores).items():
            self.columns[name].append(values)
        self.digests.append(scene_digests(scenes))
        self.has_foreground.append(np.any(scenes.segments >= scenes.background_segments, axis=(1, 2)))
        self.gallery.update(columns["index"], scores, scenes, prediction)
        self.baselines.update(columns["index"], scenes, self.scored)

    def _check_form(self, answered: Prediction, scenes: Scenes) -> None:
        """Settle at the first batch which metrics exist; later batches must look like the first."""
        form = _Form(
            scenes.image.shape[1:],
            tuple(answered.arrays()),
            answered.likelihood_kind,
            scenes.background_segments,
        )
        if self.form is None:
            self.form = form
            self._settle(form)
        elif form != self.form:
            raise DataError(f"{self.who}: expected every batch like the first ({self.form}), got {form}.")

    def _settle(self, form: _Form) -> None:
        """Sort out which metrics exist for what the model gives."""
        for name, spec in self.specs.items():
            if missing := spec.missing(form.fields):
                self.not_available[name] = f"model gives no {' and no '.join(missing)}"
            else:
                self.scored[name] = spec
        self.gallery = Gallery(self.scored, self.gallery.size)

    def finish(
        self, model: str, dataset: dict[str, Any], protocol: dict[str, Any], convention: str | None
    ) -> Evaluation:
        """Drop repeated scenes and sum up."""
        if self.form is None or not any(map(len, self.columns["index"])):
            raise DataError("evaluate: expected at least one scene, got none; is the split empty?")
        joined = {name: np.concatenate(parts) for name, parts in self.columns.items()}
        _, first = np.unique(joined["index"], return_index=True)
        columns = {name: joined[name][first] for name in self._order(joined)}
        facts = self._facts(self.form, columns["index"], len(joined["index"])) | {
            "convention": convention,
            "interval": self.interval,
        }
        worst, best = self.gallery.ends()
        return Evaluation(
            model=model,
            dataset=dataset,
            protocol=protocol | facts,
            stamp=protocol_stamp(
                dataset=dataset,
                index=columns["index"],
                digests=np.concatenate(self.digests)[first],
                image_shape=self.form.image_shape,
                background_segments=self.form.background_segments,
                specs=self.specs,
                likelihood_kind=self.form.likelihood_kind,
            ),
            metrics=self._means(columns, np.ones(len(first), bool), self.interval),
            not_available=self.not_available,
            by_count={
                int(count): self._means(columns, columns["true_count"] == count)
                for count in np.unique(columns["true_count"])
            },
            confusion=self._confusion(columns),
            likelihood_kind=self.form.likelihood_kind,
            environment=environment(),
            columns=columns,
            baselines=self.baselines.finish({name: columns[name] for name in ("index", *self.scored)}),
            warnings=self._suspicions(columns["true_count"] * np.concatenate(self.has_foreground)[first]),
            ranked_by=self.gallery.ranked_by,
            worst=worst,
            best=best,
        )

    def _order(self, columns: Mapping[str, np.ndarray]) -> list[str]:
        """Return the columns' names: what identifies a scene, then the scores, then how hard it is."""
        front = [name for name in _NOT_SCORES if name in columns]
        return list(dict.fromkeys([*front, *self.scored, *columns]))

    def _means(
        self, columns: dict[str, np.ndarray], chosen: np.ndarray, interval: float | None = None
    ) -> dict[str, Summary]:
        summaries: dict[str, Summary] = {}
        for name in self.scored:
            mean = Mean()
            mean.update(columns[name][chosen])
            summaries[name] = mean.summary(interval=interval, rng=np.random.default_rng(0))
        return summaries

    def _confusion(self, columns: dict[str, np.ndarray]) -> dict[str, list] | None:
        if "predicted_count" not in columns:
            return None
        try:
            table = count_confusion(columns["true_count"], columns["predicted_count"])
        except ValueError:  # too large for a table: the scores are there without it
            return None
        rows, inferred = table.shape
        return {"true": list(range(rows)), "predicted": list(range(inferred)), "table": table.tolist()}

    def _suspicions(self, objects: np.ndarray) -> tuple[str, ...]:
        """Warn of data that look as if they had been read wrongly; return the sentences."""
        if len(objects) < _FEWEST:
            return ()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", SuspiciousDataWarning)
            warn_if_mostly_empty(objects)
        sentences = tuple(str(each.message) for each in caught)
        for text in sentences:
            warnings.warn(text, SuspiciousDataWarning, stacklevel=4)
        return sentences

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
