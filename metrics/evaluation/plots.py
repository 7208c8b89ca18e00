"""Geometry of the report's small plots: scores with standard errors over bins; the template draws them as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from metrics.evaluation.breakdown import Bin
from metrics.evaluation.result import Evaluation

WIDTH, HEIGHT = 200.0, 110.0
"""Size of a plot's drawing area, without labels."""

SHOWN = {
    "true_count": "objects",
    "smallest_visible_fraction": "smallest visible fraction",
    "smallest_distance": "smallest distance (px)",
    "smallest_contrast": "smallest contrast",
    "mean_size": "mean object size (px)",
}
"""The difficulties that are plotted, with their axis' title."""


SAME_AS_OTHERS = ("count_absolute_error", "box_miou_ocl", "mbo", "mse", "rmse", "bits_per_dimension")
"""Metrics whose plots would repeat another's."""


@dataclass(frozen=True)
class Point:
    """One bin: where it lies, from where to where one standard error reaches, and what it holds."""

    x: float
    y: float
    low: float
    high: float
    label: str
    text: str


@dataclass(frozen=True)
class Plot:
    """A metric over one difficulty."""

    title: str
    points: tuple[Point, ...]

    @property
    def line(self) -> str:
        """The points as SVG's ``points``."""
        return " ".join(f"{point.x},{point.y}" for point in self.points)


@dataclass(frozen=True)
class PlotRow:
    """One metric over several difficulties, on one scale."""

    metric: str
    top: str
    bottom: str
    plots: tuple[Plot, ...]


def plot_rows(evaluation: Evaluation) -> list[PlotRow]:
    """Return one row a metric that varies, one plot a difficulty with at least two bins."""
    bins = {name: evaluation.by_difficulty(name) for name in SHOWN}
    bins = {name: found for name, found in bins.items() if len(found) > 1}
    rows = (_row(metric, bins) for metric in evaluation.metrics if metric not in SAME_AS_OTHERS)
    return [row for row in rows if row is not None]


def _row(metric: str, bins: Mapping[str, Sequence[Bin]]) -> PlotRow | None:
    reach = [end for found in bins.values() for each in found for end in _reach(each, metric)]
    if not reach or math.isclose(min(reach), max(reach), rel_tol=1e-9, abs_tol=1e-12):
        return None
    low, high = min(reach), max(reach)
    plots = tuple(
        Plot(SHOWN[name], points)
        for name, found in bins.items()
        if len(points := _points(found, metric, low, high)) > 1
    )
    return PlotRow(metric, f"{high:.3g}", f"{low:.3g}", plots) if plots else None


def _reach(each: Bin, metric: str) -> list[float]:
    """Return mean minus and plus one standard error (0 if there is none); nothing where there is no mean."""
    mean, stderr = each.metrics[metric]["mean"], each.metrics[metric]["stderr"]
    if math.isnan(mean):
        return []
    stderr = 0.0 if math.isnan(stderr) else stderr
    return [mean - stderr, mean + stderr]


def _points(bins: Sequence[Bin], metric: str, low: float, high: float) -> tuple[Point, ...]:
    def height(value: float) -> float:
        return round(HEIGHT * (high - value) / (high - low), 2)

    points = []
    for number, each in enumerate(bins):
        if ends := _reach(each, metric):
            summary = each.metrics[metric]
            x = round(WIDTH * (number + 0.5) / len(bins), 2)
            text = f"{each.label}: {summary['mean']:.4g}, standard error {summary['stderr']:.2g}, n {summary['n']}"
            points.append(
                Point(x, height(summary["mean"]), height(ends[0]), height(ends[1]), _short(each.middle), text)
            )
    return tuple(points)


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2g}"
