"""Runs side by side on the same images: differences, whether they are resolved, and the refusal to mix protocols."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from metrics.comparison.recorded import Group, Recorded, group_runs
from metrics.comparison.resampling import Resampling, interval_of
from metrics.evaluation.result import strict
from metrics.evaluation.stamp import differences, same_scenes, sentence, unsaid
from multiobj_data.errors import UsageError, did_you_mean

COMPARISON_SCHEMA = 1
FEW_SEEDS = 5
"""Below so many seeds, what a seed more would change is hardly known, and intervals come out too narrow."""


@dataclass(frozen=True)
class Cell:
    """One group's figure.

    Attributes:
        mean: Over images; over the seeds' means, if there are several.
        spread: Standard error over images, or the standard deviation over seeds (ddof 1).
        seeds: How many runs.
        n: Images scored (of all seeds together).
        skipped: Images skipped.
        best: No other group is resolved to be better, and it is best or not resolved to be worse than the best.
    """

    mean: float
    spread: float
    seeds: int
    n: int
    skipped: int
    best: bool


@dataclass(frozen=True)
class Difference:
    """A group's mean minus the reference's, over the images that both scored.

    Attributes:
        mean: The difference.
        low: Lower end of its interval.
        high: Upper end.
        n: Images in it.
        paired: Whether the images are the same; otherwise both are resampled on their own.
        resolved: Whether the interval leaves out 0.
    """

    mean: float
    low: float
    high: float
    n: int
    paired: bool
    resolved: bool


@dataclass(frozen=True)
class Row:
    """One metric of all groups; ``None`` for a group that has it not."""

    metric: str
    higher_is_better: bool | None
    unit: str
    cells: Mapping[str, Cell | None]
    differences: Mapping[str, Difference | None]
    baselines: Mapping[str, float]


@dataclass(frozen=True)
class Comparison:
    """Groups of runs side by side.

    Attributes:
        groups: Their titles, in order; the first is the reference.
        seeds: Title -> number of runs.
        paths: Title -> files.
        rows: One a metric.
        level: Of the intervals.
        images: How many scenes were scored.
        baseline_images: On how many of them baselines were.
        unequal: What differs between the protocols, if that was let pass.
        unsaid: Facts of likelihoods that some runs state and others do not: these may differ, too.
        stamp: SHA-256 that all runs share; ``None`` if their stamps are not the same in every respect.
    """

    groups: tuple[str, ...]
    seeds: Mapping[str, int]
    paths: Mapping[str, Sequence[str]]
    rows: tuple[Row, ...]
    level: float
    images: int
    baseline_images: int | None
    unequal: tuple[str, ...]
    unsaid: tuple[str, ...]
    stamp: str | None

    def to_json(self) -> dict[str, Any]:
        """Return everything as strict JSON values: NaN becomes ``None``."""
        return strict({"schema_version": COMPARISON_SCHEMA, **asdict(self)})


def compare(
    runs: Sequence[Recorded],
    *,
    metrics: Sequence[str] | None = None,
    level: float = 0.95,
    seed: int = 0,
    force: bool = False,
    by_seed: bool = True,
) -> Comparison:
    """Put runs side by side.

    The interval of a difference is a percentile bootstrap over images (Efron and Tibshirani 1993), the same draw for
    both sides; with several seeds of a model, seeds are drawn too, their deviations widened by sqrt(s / (s - 1)), so
    that the variance over s seeds is unbiased.

    Args:
        runs: At least two; the first one's group is the reference.
        metrics: Only these; by default all that any run has, in the first run's order.
        level: Of the intervals, in (0, 1).
        seed: Of the draws.
        force: Compare runs of different protocols all the same.
        by_seed: Whether seeds of one model share a column: `metrics.comparison.recorded.group_runs`.

    Raises:
        UsageError: Fewer than two runs, an unknown metric, or protocols that differ.
    """
    if not 0 < level < 1:
        raise UsageError(f"interval: expected a level above 0 and below 1, e.g. 0.95, got {level}.")
    groups = group_runs(runs, by_seed=by_seed)
    if len(groups) < 2:
        hint = "they are seeds of one model: give --no-seeds" if len(runs) > 1 else "give another one"
        raise UsageError(f"compare: expected at least two columns, got one; {hint}.")
    names = _chosen(runs, metrics)
    stamps = [run.stamp for run in runs]
    unequal = differences(stamps, names)
    if unequal and not force:
        raise UsageError(
            f"these runs were not scored alike: {sentence(unequal)}; evaluate them alike, compare less with --metric, "
            "or say --force."
        )
    draws = _Draws(seed, level, paired=same_scenes(stamps))
    whole = {run.document["stamp"]["sha256"] for run in runs}
    baselines = _baselines(runs)
    return Comparison(
        groups=tuple(group.label for group in groups),
        seeds={group.label: len(group.runs) for group in groups},
        paths={group.label: [str(run.path) for run in group.runs] for group in groups},
        rows=tuple(_row(name, groups, draws, baselines) for name in names),
        level=level,
        images=max(len(run.columns["index"]) for run in runs),
        baseline_images=baselines.get("images"),
        unequal=tuple(unequal),
        unsaid=tuple(unsaid(stamps, names)),
        stamp=whole.pop() if len(whole) == 1 else None,
    )


def _chosen(runs: Sequence[Recorded], metrics: Sequence[str] | None) -> list[str]:
    known = list(dict.fromkeys(name for run in runs for name in run.metrics))
    for name in metrics or ():
        if name not in known:
            raise UsageError(f"no run has a metric {name!r}.{did_you_mean(name, known)}")
    chosen = list(dict.fromkeys(metrics)) if metrics else known
    if not chosen:
        raise UsageError("compare: no run has a metric, so that there is nothing to compare.")
    return chosen


def _baselines(runs: Sequence[Recorded]) -> dict[str, Any]:
    """Return what the first run that has any recorded of baselines; all runs scored the same images."""
    found = (run.document.get("baselines") for run in runs)
    return next((each for each in found if each), {})


def _row(name: str, groups: Sequence[Group], draws: _Draws, baselines: Mapping[str, Any]) -> Row:
    having = [group for group in groups if all(name in run.columns for run in group.runs)]
    definition = _definition(name, [run for group in having for run in group.runs])
    higher = definition.get("higher_is_better")
    best = _best(name, having, higher, draws)
    reference = groups[0]
    return Row(
        metric=name,
        higher_is_better=higher,
        unit=str(definition.get("unit", "")),
        cells={
            group.label: _cell(name, group, group in best) if group in having else None for group in groups
        },
        differences={
            group.label: draws.difference(name, group, reference)
            if group in having and reference in having
            else None
            for group in groups[1:]
        },
        baselines={
            baseline: scores[name]["mean"]
            for baseline, scores in baselines.get("baselines", {}).items()
            if name in scores and scores[name]["mean"] is not None
        },
    )


def _definition(name: str, runs: Sequence[Recorded]) -> Mapping[str, Any]:
    found = (run.document["protocol"].get("definitions", {}).get(name) for run in runs)
    return next((each for each in found if each), {})


def _cell(name: str, group: Group, best: bool) -> Cell:
    values = [run.columns[name] for run in group.runs]
    scored = [column[~np.isnan(column)] for column in values]
    n = sum(map(len, scored))
    means = [math.fsum(column) / len(column) if len(column) else math.nan for column in scored]
    if len(means) > 1:
        spread = float(np.std(means, ddof=1))
    else:
        spread = float(np.std(scored[0], ddof=1) / math.sqrt(n)) if n > 1 else math.nan
    return Cell(float(np.mean(means)), spread, len(values), n, sum(map(len, values)) - n, best)


def _best(name: str, groups: Sequence[Group], higher: bool | None, draws: _Draws) -> list[Group]:
    """Return the best group and those that are not resolved to be worse; none if neither way is better."""
    known = [group for group in groups if not math.isnan(_cell(name, group, False).mean)]
    if higher is None or len(known) < 2:
        return []
    sign = 1 if higher else -1
    top = max(known, key=lambda group: sign * _cell(name, group, False).mean)
    tied = [group for group in known if group is top or not draws.difference(name, group, top).resolved]
    return tied if len(tied) < len(known) else []  # bold everywhere says nothing


class _Draws:
    """Differences between groups, and how sure they are."""

    def __init__(self, seed: int, level: float, paired: bool) -> None:
        self._sets, self.level, self.paired = Resampling(seed), level, paired
        self._known: dict[tuple[str, str, str], Difference] = {}

    def difference(self, name: str, group: Group, reference: Group) -> Difference:
        """Return the mean of ``group`` minus that of ``reference``."""
        key, mirrored = (name, group.label, reference.label), (name, reference.label, group.label)
        if key not in self._known:
            found = self._difference(name, group, reference)
            turned = replace(found, mean=-found.mean, low=-found.high, high=-found.low)
            self._known |= {key: found, mirrored: turned}
        return self._known[key]

    def _difference(self, name: str, group: Group, reference: Group) -> Difference:
        ours, theirs = _table(name, group), _table(name, reference)
        if self.paired:
            ours, theirs = _joined(ours, theirs)
        left, right = (_known(values) for _, values in (ours, theirs))
        n = min(left.shape[1], right.shape[1])
        if n == 0:
            return Difference(math.nan, math.nan, math.nan, 0, self.paired, False)
        mean = float(left.mean() - right.mean())
        if n < 2:
            return Difference(mean, math.nan, math.nan, n, self.paired, False)
        low, high = interval_of(self._sets.differences(left, right, paired=self.paired), self.level)
        return Difference(mean, low, high, n, self.paired, not low <= 0 <= high)


Table = tuple[np.ndarray, np.ndarray]
"""Indices ``[N]`` and values of S seeds ``[S, N]``."""


def _table(name: str, group: Group) -> Table:
    """Return the images that every seed of a group has."""
    index = group.runs[0].columns["index"]
    for run in group.runs[1:]:
        index = np.intersect1d(index, run.columns["index"])
    rows = [np.searchsorted(run.columns["index"], index) for run in group.runs]
    return index, np.stack([run.columns[name][row] for run, row in zip(group.runs, rows, strict=True)])


def _joined(ours: Table, theirs: Table) -> tuple[Table, Table]:
    """Keep the images that both sides have scored, in the same order."""
    _, left, right = np.intersect1d(ours[0], theirs[0], return_indices=True)
    left_values, right_values = ours[1][:, left], theirs[1][:, right]
    both = ~(np.isnan(left_values).any(0) | np.isnan(right_values).any(0))
    return (ours[0][left][both], left_values[:, both]), (theirs[0][right][both], right_values[:, both])


def _known(values: np.ndarray) -> np.ndarray:
    """Drop images ``[S, N]`` that a seed skipped."""
    return values[:, ~np.isnan(values).any(0)]
