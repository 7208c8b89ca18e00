"""The picture of learning over time: a panel for each data set, the paper's points in grey."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cli.reproduction.curves import Curve, curves_of
from cli.reproduction.results import Group
from cli.reproduction.tables import Table
from multiobj_data.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = "o^sDvP"
_PER_ROW = 2


def draw_curves(table: Table, groups: Sequence[Group], path: Path) -> None:
    """Draw the count accuracy over the seconds: every seed thin, their median thick, the paper's points grey.

    Args:
        table: Gives the panels and the paper's points.
        groups: What was measured.
        path: Of the PNG.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import StrMethodFormatter

    shown = [column for column in table.columns if any(group.column == column for group in groups)]
    across = min(_PER_ROW, len(shown))
    rows = -(-len(shown) // across)
    figure = Figure(figsize=(5 * across + 2, 3.4 * rows + 1.2), layout="constrained")
    figure.suptitle(f"{table.title};\ngrey: the paper's points, on a {table.curves['hardware']}", fontsize=11)
    panels = figure.subplots(rows, across, squeeze=False, sharey=True).ravel()
    for axes, column in zip(panels, shown, strict=False):
        _draw_ours(axes, table, [group for group in groups if group.column == column])
        _draw_published(axes, table, column)
        axes.set(title=table.columns[column].about, xscale="log", ylim=(-2, 102))
        axes.set_xlabel("seconds of training, on this machine")
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(shown) :]:
        axes.axis("off")
    for axes in panels[::across]:
        axes.set_ylabel("count accuracy, test (%)")
    known = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(known.values()), list(known), loc="outside lower center", ncols=2, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150)
    write_atomically(path, buffer.getvalue())


def _draw_ours(axes: Axes, table: Table, groups: Sequence[Group]) -> None:
    kinds = [(row.name, form) for row in table.rows for form in row.forms]
    for group in groups:
        colour = f"C{kinds.index((group.row.name, group.form))}"
        curves = [curve for curve in curves_of(group) if curve]
        for curve in curves:
            seconds, accuracy = np.transpose(curve)
            axes.plot(seconds, 100 * accuracy, color=colour, lw=0.7, alpha=0.5)
        if curves:
            seconds, accuracy = median_curve(curves)
            axes.plot(seconds, 100 * accuracy, color=colour, lw=2.2, label=f"{group.row.name}, {group.form}")


def median_curve(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Return the median of curves over time, while all of them last, and linear between what was measured.

    Args:
        curves: (seconds, accuracy) of each seed.

    Returns:
        Seconds ``[n]`` and the median ``[n]`` there.
    """
    begin, end = max(curve[0][0] for curve in curves), min(curve[-1][0] for curve in curves)
    times = {seconds for curve in curves for seconds, _ in curve if begin <= seconds <= end}
    at = np.array(sorted(times or {begin}))
    seeds = [np.interp(at, *np.transpose(curve)) for curve in curves]
    return at, np.median(seeds, axis=0)


def _draw_published(axes: Axes, table: Table, column: str) -> None:
    for marker, row in zip(_MARKERS, table.rows, strict=False):
        points = table.curves["published"].get(row.name, {}).get(column)
        if points:
            seconds, accuracy = np.transpose(points)
            axes.plot(seconds, 100 * accuracy, marker, color="0.55", markersize=5, label=f"{row.name}, paper")
