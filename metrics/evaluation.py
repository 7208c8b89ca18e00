"""The result of an evaluation: figures with their protocol, ready for JSON, CSV and the report."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metrics.examples import Example
from multiobj_data.errors import UsageError
from multiobj_data.files import replacing

SCHEMA_VERSION = 1
_ADVICE = "what was there is unchanged; make room, or choose another file."
Summary = Mapping[str, float | int]
"""``mean``, ``stderr``, ``n`` (scored), ``skipped``; NaN for what does not exist."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `metrics.evaluate` found out.

    Attributes:
        model: How the model is called.
        dataset: Facts about the data, as given.
        protocol: Facts about the run: number of images, index range, image shape, where the counts come from,
            definition and version of each metric, and what the caller added.
        metrics: Metric -> summary over all images.
        not_available: Metric -> why the model cannot have it.
        by_count: True number of objects -> metric -> summary.
        confusion: ``true`` and ``predicted`` labels and the ``table`` of counts (rows true); ``None`` if the
            model does not count.
        likelihood_kind: ``"exact"``, ``"elbo"``, ``"iwae-5"``, ...; ``None`` without a likelihood.
        environment: Versions of what computed the figures.
        columns: ``index``, ``true_count``, ``predicted_count`` (if any) and each metric: ``[N]``, by
            increasing index.
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
    ranked_by: str | None = None
    worst: tuple[Example, ...] = ()
    best: tuple[Example, ...] = ()

    @property
    def per_image(self) -> dict[str, np.ndarray]:
        """Metric -> float64 ``[N]``, in the order of ``columns["index"]``; NaN where skipped."""
        return {name: self.columns[name] for name in self.metrics}

    def to_json(self) -> dict[str, Any]:
        """Return the figures as strict JSON values: NaN becomes ``None``, keys become text."""
        return _strict(
            {
                "schema_version": SCHEMA_VERSION,
                "model": self.model,
                "dataset": self.dataset,
                "protocol": self.protocol,
                "metrics": self.metrics,
                "not_available": self.not_available,
                "confusion": self.confusion,
                "by_count": self.by_count,
                "likelihood_kind": self.likelihood_kind,
                "environment": self.environment,
            }
        )

    def write_per_image(self, path: str | os.PathLike[str]) -> None:
        """Write one row an image as CSV; a skipped value is an empty cell, floats read back exactly.

        Raises:
            UsageError: If ``path`` does not end in ``.csv``, or its folder does not exist.
        """
        expect_csv(path)
        with (
            replacing(path, _ADVICE) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(self.columns)
            for row in zip(*(values.tolist() for values in self.columns.values()), strict=True):
                writer.writerow("" if value != value else value for value in row)


def expect_csv(path: str | os.PathLike[str]) -> None:
    """Raise ``UsageError`` unless ``path`` ends in ``.csv``: per-image values are written as nothing else."""
    if Path(path).suffix.lower() != ".csv":
        raise UsageError(f"{path}: expected a name that ends in .csv; per-image values are written as CSV.")


def _strict(value: Any) -> Any:
    """Return ``value`` with text keys, plain containers and numbers, and ``None`` for NaN."""
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return _strict(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
