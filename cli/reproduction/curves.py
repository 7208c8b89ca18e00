"""Count accuracy over the seconds of training: how soon each method gets where (SuPAIR, figure 5).

A seed gets to an accuracy when it is first measured to have it. Those that never do count as later than all others,
so that a median over seeds leaves none out; where it cannot be told, it is at least the seconds that were trained.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.reproduction.results import DASH, Group
from cli.reproduction.tables import Table

Curve = Sequence[Sequence[float]]
"""(seconds of training, count accuracy), as measured during a run."""

SECONDS = (
    "Seconds of training, all on this machine, until the count accuracy on the first 1,000 test scenes is first "
    "measured to be so high: median over all seeds, and how many of them got there. `>`: half of them did not in the "
    "time that they were trained, or failed."
)
RATIOS = (
    "How many times as long as {first} each takes to get there: medians over all seeds, one divided by the other. "
    "`>`: at least so many times, since it did not get there in the time that it was trained."
)
SIDE_BY_SIDE = (
    " {n} of {of} runs were trained side by side with others, by another command with --jobs: their seconds are too "
    "many."
)


def curve_of(folder: Path) -> list[list[float]]:
    """Return what the log of a finished run says of its count accuracy over time."""
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    records = map(json.loads, lines)
    return [
        [record["elapsed_s"], record["count_accuracy"]]
        for record in records
        if record.get("count_accuracy") is not None
    ]


@dataclass(frozen=True)
class Reach:
    """When the seeds of a group get to an accuracy.

    Attributes:
        seconds: Median over all seeds; a lower bound of it, if ``bound``.
        bound: Whether half of the seeds did not get there.
        there: How many seeds did.
        of: How many there are.
    """

    seconds: float
    bound: bool
    there: int
    of: int

    @classmethod
    def of_curves(cls, curves: Sequence[Curve], level: float) -> Reach | None:
        """Return when curves get to a level; ``None`` for none."""
        if not curves:
            return None
        times = [seconds_to(curve, level) for curve in curves]
        median = statistics.median(times)
        trained = [
            min(seconds, curve[-1][0] if curve else 0.0) for seconds, curve in zip(times, curves, strict=True)
        ]
        return cls(
            seconds=statistics.median(trained) if math.isinf(median) else median,
            bound=math.isinf(median),
            there=sum(map(math.isfinite, times)),
            of=len(times),
        )


def seconds_to(curve: Curve, level: float) -> float:
    """Return the seconds after which a curve is first at ``level`` or above; infinite if it never is."""
    return next((seconds for seconds, accuracy in curve if accuracy >= level), math.inf)


def curves_of(group: Group) -> list[Curve]:
    """Return the curve of every finished seed."""
    return [result["curve"] for result in group.results.values()]


def reach_of(group: Group, level: float) -> Reach | None:
    """Return when the seeds of a group get to an accuracy; those that failed never do."""
    return Reach.of_curves([*curves_of(group), *([] for _ in group.failed)], level)


def reach_rows(table: Table, groups: Sequence[Group]) -> tuple[list[str], list[list[str]]]:
    """Return header and lines: seconds to each level, and how many seeds got there."""
    levels = table.curves["levels"]
    header = ["data", "method", "form", *(f"{100 * level:g} %" for level in levels)]
    lines = []
    for group in groups:
        found = [reach_of(group, level) for level in levels]
        lines.append([table.columns[group.column].about, group.row.name, group.form, *map(_reach, found)])
    return header, lines


def _reach(reach: Reach | None) -> str:
    if reach is None:
        return DASH
    return f"{'> ' if reach.bound else ''}{reach.seconds:,.0f} s ({reach.there} of {reach.of})"


def ratio_of(slow: Reach | None, fast: Reach | None) -> tuple[float, bool] | None:
    """Return how many times as long one takes as the other, and whether that is only a lower bound.

    Returns:
        ``None`` if there is no saying: the other does not get there itself.
    """
    if slow is None or fast is None or fast.bound or fast.seconds <= 0:
        return None
    return slow.seconds / fast.seconds, slow.bound


def ratio_rows(table: Table, groups: Sequence[Group]) -> tuple[list[str], list[list[str]]]:
    """Return header and lines: how many times as long as the first row the others take to each level."""
    first, levels = table.rows[0], table.curves["levels"]
    header = ["data", "seconds of", *(f"{100 * level:g} %" for level in levels)]
    lines = []
    for column in table.columns:
        here = {(group.row.name, group.form): group for group in groups if group.column == column}
        fast = next((group for (name, _), group in here.items() if name == first.name), None)
        for name, form in table.curves["ratios"]:
            slow = here.get((name, form))
            if slow is None or fast is None:
                continue
            found = [ratio_of(reach_of(slow, level), reach_of(fast, level)) for level in levels]
            about = f"{name} {form} over {first.name}"
            lines.append([table.columns[column].about, about, *map(_ratio, found)])
    return header, lines


def _ratio(ratio: tuple[float, bool] | None) -> str:
    return DASH if ratio is None else f"{'> ' if ratio[1] else ''}{ratio[0]:.1f}"


def curve_extras(table: Table, groups: Sequence[Group]) -> list[tuple[str, str, Any]]:
    """Return the tables of the figure: title, how it was measured, header and lines."""
    results = [result for group in groups for result in group.results.values()]
    if not results:
        return []
    crowded = sum(result["jobs"] > 1 for result in results)
    more = SIDE_BY_SIDE.format(n=crowded, of=len(results)) if crowded else ""
    found: list[tuple[str, str, Any]] = [
        ("Seconds to a count accuracy", SECONDS + more, reach_rows(table, groups))
    ]
    if (ratios := ratio_rows(table, groups))[1]:
        found.append(("How much sooner", RATIOS.format(first=table.rows[0].name), ratios))
    return found


def curve_document(table: Table, groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Return the curves and when they get where, as JSON values."""
    return [
        {
            "column": group.column,
            "method": group.row.name,
            "form": group.form,
            "curves": {str(seed): result["curve"] for seed, result in group.results.items()},
            "jobs": {str(seed): result["jobs"] for seed, result in group.results.items()},
            "seconds_to": {
                f"{level:g}": None
                if (reach := reach_of(group, level)) is None
                else {"median": reach.seconds, "bound": reach.bound, "there": reach.there, "seeds": reach.of}
                for level in table.curves["levels"]
            },
        }
        for group in groups
    ]
