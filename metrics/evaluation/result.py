"""The result of an evaluation: figures with their protocol, ready for JSON, CSV and the report."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from metrics.evaluation.breakdown import Bin, bins_of
from metrics.evaluation.difficulty import DIFFICULTIES
from metrics.evaluation.examples import Example
from metrics.evaluation.floors import BaselineScores
from metrics.evaluation.per_image import write_table
from multiobj_data.errors import UsageError, did_you_mean

SCHEMA_VERSION = 1
Summary = Mapping[str, float | int]
"""``mean``, ``stderr``, ``n`` (scored), ``skipped``, perhaps ``low`` and ``high``; NaN for what does not exist."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `metrics.evaluate` found out.

    Attributes:
        model: How the model is called.
        dataset: Facts about the data, as given.
        protocol: Facts about the run: number of images, index range, image shape, where the counts come from,
            definition and version of each metric, and what the caller added.
        stamp: What must be equal before figures are compared: `metrics.evaluation.stamp.protocol_stamp`.
        metrics: Metric -> summary over all images.
        not_available: Metric -> why the model cannot have it.
        by_count: True number of objects -> metric -> summary.
        confusion: ``true`` and ``predicted`` labels and the ``table`` of counts (rows true); ``None`` if the
            model does not count.
        likelihood_kind: ``"exact"``, ``"elbo"``, ``"iwae-5"``, ...; ``None`` without a likelihood.
        environment: Versions of what computed the figures.
        columns: ``index``, ``true_count``, ``predicted_count`` (if any), each metric, and how hard the scene is
            (`metrics.evaluation.difficulty.DIFFICULTIES`): ``[N]``, by increasing index.
        baselines: What baselines score on some of the same images; ``None`` if none was asked for.
        generation: Figures of images that the model drew (`metrics.generation.scoring`); ``None`` if it drew none.
        warnings: What looks suspicious, as sentences.
        ranked_by: Metric that ranks the examples.
        worst: Worst scenes, worst first.
        best: Best scenes, best first.
    """

    model: str
    dataset: Mapping[str, Any]
    protocol: Mapping[str, Any]
    metrics: Mapping[str, Summary]
    not_available: Mapping[str, str]
    by_count: Mapping[int, Mapping[str, Summary]]
    confusion: Mapping[str, list] | None
    likelihood_kind: str | None
    environment: Mapping[str, str | None]
    columns: Mapping[str, np.ndarray]
    stamp: Mapping[str, Any] = field(default_factory=dict)
    baselines: BaselineScores | None = None
    generation: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    ranked_by: str | None = None
    worst: tuple[Example, ...] = ()
    best: tuple[Example, ...] = ()

    @property
    def per_image(self) -> dict[str, np.ndarray]:
        """Metric -> float64 ``[N]``, in the order of ``columns["index"]``; NaN where skipped."""
        return {name: self.columns[name] for name in self.metrics}

    def to_json(self) -> dict[str, Any]:
        """Return the figures as strict JSON values: NaN becomes ``None``, keys become text."""
        return strict(
            {
                "schema_version": SCHEMA_VERSION,
                "model": self.model,
                "dataset": self.dataset,
                "protocol": self.protocol,
                "stamp": self.stamp,
                "metrics": self.metrics,
                "not_available": self.not_available,
                "baselines": None if self.baselines is None else self.baselines.to_json(),
                "generation": self.generation,
                "warnings": self.warnings,
                "confusion": self.confusion,
                "by_count": self.by_count,
                "likelihood_kind": self.likelihood_kind,
                "environment": self.environment,
            }
        )

    def by_difficulty(self, name: str) -> list[Bin]:
        """Return every metric by how hard the scenes are in one respect: `metrics.evaluation.breakdown.bins_of`.

        Args:
            name: One of `metrics.evaluation.difficulty.DIFFICULTIES`.

        Raises:
            UsageError: If it is none of them.
        """
        if name not in DIFFICULTIES:
            raise UsageError(f"no difficulty named {name!r}.{did_you_mean(name, DIFFICULTIES)}")
        return bins_of(self.columns, name, tuple(self.metrics))

    def write_per_image(self, path: str | os.PathLike[str]) -> None:
        """Write one row an image as ``.csv``, ``.csv.gz`` or ``.parquet``: see `per_image.write_table`."""
        write_table(self.columns, path)


def strict(value: Any) -> Any:
    """Return ``value`` with text keys, plain containers and numbers, and ``None`` for NaN."""
    if isinstance(value, Mapping):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return strict(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
