"""From the finished cells to the paper's table with ours beside it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cli.reproduction.cells import Cell
from cli.reproduction.tables import Metric, Row, Table

DASH = "–"


@dataclass(frozen=True)
class Summary:
    """A figure over seeds.

    Attributes:
        mean: Of the seeds.
        sd: Standard deviation between them (ddof 1); ``None`` for fewer than two.
        n: How many seeds.
    """

    mean: float
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary | None:
        """Return the summary of values; ``None`` for none."""
        if not values:
            return None
        return cls(
            statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values)
        )


@dataclass
class Group:
    """What is known of one model in one form on one data set, over its seeds.

    Attributes:
        column: Key of the column.
        row: The row.
        form: How it was trained.
        results: Seed -> result of a finished cell.
        failed: Seed -> why it failed.
        of_paper: Column of the paper whose figures stand beside it; its own if empty.
    """

    column: str
    row: Row
    form: str
    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    of_paper: str = ""

    @property
    def name(self) -> str:
        """What pictures and messages call it."""
        return f"{self.row.name} {self.form}, {self.column}"

    def values(self, metric: Metric) -> list[float]:
        """Return a metric's means, seed by seed; a seed whose mean does not exist is left out."""
        found = (_value(metric, result) for result in self.results.values())
        return [value for value in found if value is not None]

    def summary(self, metric: Metric) -> Summary | None:
        """Return a metric over all finished seeds."""
        return Summary.of(self.values(metric))

    def published(self, metric: str) -> Summary | None:
        """Return the paper's figure."""
        found = self.row.published.get(self.of_paper or self.column, {}).get(metric)
        if found is None:
            return None
        return Summary(found[0], found[1] if len(found) > 1 else None, 0)

    def successes(self, table: Table) -> tuple[int, int]:
        """Return how many seeds reach the table's threshold, and of how many: those that failed included."""
        metric, least = table.metrics[table.success["metric"]], table.success["at_least"]
        good = sum(value >= least for value in self.values(metric))
        return good, len(self.results) + len(self.failed)

    @property
    def seconds(self) -> Summary | None:
        """Training time of a seed."""
        return Summary.of([result["seconds"] for result in self.results.values()])

    def apart(self, kind: str) -> tuple[int, int] | None:
        """Return how many samples of all seeds keep their ``windows`` or ``ink`` apart, and of how many."""
        found = [result["overlap"] for result in self.results.values() if result["overlap"]]
        if not found:
            return None
        return sum(each[f"{kind}_apart"] for each in found), sum(each[f"with_{kind}"] for each in found)


def groups_of(
    table: Table, outcomes: Iterable[tuple[Cell, dict[str, Any] | None, str | None]]
) -> list[Group]:
    """Gather cells, each with its result or the reason of its failure, by what their seeds share."""
    groups: dict[tuple[str, str, str], Group] = {}
    for cell, result, failure in outcomes:
        of_paper = table.columns[cell.column].of_paper
        new = Group(cell.column, table.row(cell.row), cell.form, of_paper=of_paper)
        group = groups.setdefault(cell.group, new)
        if result is not None:
            group.results[cell.seed] = result
        elif failure is not None:
            group.failed[cell.seed] = failure
    return list(groups.values())


def main_rows(table: Table, groups: Sequence[Group]) -> tuple[list[str], list[list[str]]]:
    """Return header and lines: the paper's figures, below them ours by form, mean ± sd over all seeds."""
    least = f"{table.success['metric']} ≥ {table.success['at_least']:g}"
    header = ["data", "method", "", *table.metrics, least, "training, a seed"]
    lines: list[list[str]] = []
    of_paper = None
    for group in groups:
        about = [table.columns[group.column].about, group.row.name]
        if about != of_paper:
            of_paper = about
            paper = [
                figure(group.published(name), metric.published) for name, metric in table.metrics.items()
            ]
            source = f"paper, {group.of_paper}" if group.of_paper else "paper"
            lines.append([*about, source, *paper, "", ""])
        lines.append([*about, f"ours, {group.form}", *_ours(table, group)])
    return header, lines


def _ours(table: Table, group: Group) -> list[str]:
    figures = [figure(group.summary(metric), metric.digits) for metric in table.metrics.values()]
    good, n = group.successes(table)
    failed = f" ({len(group.failed)} failed)" if group.failed else ""
    seconds = group.seconds
    return [
        *figures,
        f"{good} of {n}{failed}" if n else DASH,
        DASH if seconds is None else duration(seconds.mean),
    ]


def figure(summary: Summary | None, digits: int) -> str:
    """Return a figure as it is printed, with its spread if it has one; a dash if there is none."""
    if summary is None:
        return DASH
    spread = "" if summary.sd is None else f" ± {summary.sd:,.{digits}f}"
    return f"{summary.mean:,.{digits}f}{spread}"


def overlap_rows(table: Table, groups: Sequence[Group]) -> tuple[list[str], list[list[str]]]:
    """Return header and lines: the share of samples in which no two objects overlap."""
    header = ["data", "method", "form", "no windows overlap", "of", "no ink overlaps", "of"]
    lines = []
    for group in groups:
        if (windows := group.apart("windows")) and (ink := group.apart("ink")):
            about = [table.columns[group.column].about, group.row.name, group.form]
            lines.append([*about, _share(*windows), f"{windows[1]:,}", _share(*ink), f"{ink[1]:,}"])
    return header, lines


def _share(good: int, n: int) -> str:
    from metrics.structure.samples import wilson_interval

    if not n:
        return DASH
    low, high = wilson_interval(good, n)
    return f"{100 * good / n:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


VARIANCES = {"variance_of_norm": "Var of norm", "trace": "trace", "count_trace": "of it from N"}


def variance_rows(table: Table, groups: Sequence[Group]) -> tuple[list[str], list[list[str]]]:
    """Return header and lines: the paper's figure and ours, by group of parameters."""
    parts = list(table.variance.get("groups", {}))
    header = ["form", "estimator"]
    for part in parts:
        if any(part in figures for figures in table.variance["published"].values()):
            header.append(f"{part}: Var of norm, paper")
        header += [f"{part}: {title}" for title in VARIANCES.values()]
    lines = []
    for group in groups:
        measured = [result["variance"] for result in group.results.values() if result["variance"]]
        found = [each["estimators"] for each in measured]
        for estimator in found[0] if found else ():
            line = [group.form, estimator]
            for part in parts:
                paper = table.variance["published"].get(estimator, {}).get(part)
                ours = [
                    Summary.of(
                        [each[estimator][part][figure] for each in found if figure in each[estimator][part]]
                    )
                    for figure in VARIANCES
                ]
                if f"{part}: Var of norm, paper" in header:
                    line.append(DASH if paper is None else f"{paper:.2e}")
                line += [_scientific(summary) for summary in ours]
            lines.append(line)
    return header, lines


def _scientific(summary: Summary | None) -> str:
    if summary is None:
        return DASH
    return f"{summary.mean:.2e}" + ("" if summary.sd is None else f" ± {summary.sd:.1e}")


def variance_protocol(groups: Sequence[Group]) -> Mapping[str, int] | None:
    """Return draws, batch and the steps of baselines; ``None`` if nothing was measured."""
    for group in groups:
        for result in group.results.values():
            if result["variance"]:
                return {name: result["variance"][name] for name in ("draws", "batch", "baseline_steps")}
    return None


def duration(seconds: float) -> str:
    """Return a time as people say it: ``41 s``, ``12 min``, ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def document(table: Table, groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Return the groups as JSON values: every seed's figures, their mean and sd, the paper's."""
    rows = []
    for group in groups:
        good, n = group.successes(table)
        figures = {
            name: {
                "paper": _json(group.published(name)),
                "ours": _json(group.summary(metric)),
                "seeds": {str(seed): _value(metric, result) for seed, result in group.results.items()},
            }
            for name, metric in table.metrics.items()
        }
        rows.append(
            {
                "column": group.column,
                "method": group.row.name,
                "form": group.form,
                "metrics": figures,
                "successful": good,
                "seeds": n,
                "failed": {str(seed): reason for seed, reason in group.failed.items()},
                "seconds": _json(group.seconds),
                "overlap": {str(seed): result["overlap"] for seed, result in group.results.items()},
                "variance": {
                    str(seed): _finite(result["variance"]) for seed, result in group.results.items()
                },
                "generation": {
                    str(seed): _finite(result.get("generation")) for seed, result in group.results.items()
                },
            }
        )
    return rows


def _value(metric: Metric, result: Mapping[str, Any]) -> float | None:
    """Return a metric's mean of one seed, or a figure of what it draws; ``None`` if it does not exist."""
    summary = result["evaluation"]["metrics"].get(metric.of)
    value = (result.get("generation") or {}).get(metric.of) if summary is None else summary["mean"]
    return None if value is None else metric.sign * value


def _json(summary: Summary | None) -> dict[str, Any] | None:
    return None if summary is None else {"mean": summary.mean, "sd": summary.sd}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
