"""A comparison as text: for Markdown, for LaTeX (booktabs), or as rows for a terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from metrics.comparison.paired import FEW_SEEDS, Cell, Comparison, Difference, Row
from metrics.evaluation.report import figure

Rows = list[list[str]]


def to_markdown(comparison: Comparison) -> str:
    """Return two Markdown tables, figures and differences, with what they mean below."""
    header, rows = figures(comparison, lambda text: f"**{text}**")
    parts = [_markdown_table(header, rows)]
    header, rows = differences(comparison)
    parts += [_markdown_table(header, rows)] if rows else []
    return "\n\n".join([*parts, *legend(comparison, "Bold")]) + "\n"


def _markdown_table(header: Sequence[str], rows: Rows) -> str:
    def escaped(cells: Sequence[str]) -> str:
        return "| " + " | ".join(re.sub(r"[|\\]", r"\\\g<0>", cell) for cell in cells) + " |"

    rule = "|:---|" + "---:|" * (len(header) - 1)
    return "\n".join([escaped(header), rule, *map(escaped, rows)])


def to_latex(comparison: Comparison) -> str:
    """Return two ``tabular`` environments for LaTeX with booktabs, figures and differences."""
    notes = [f"% {line}" for line in ("needs \\usepackage{booktabs}", *legend(comparison, "Bold"))]
    header, rows = figures(comparison, lambda text: f"\0{text}")  # marked; set in bold once escaped
    tables = [_latex_table(header, rows)]
    header, rows = differences(comparison)
    tables += ["", _latex_table(header, rows)] if rows else []
    return "\n".join([*notes, *tables]) + "\n"


def _latex_table(header: Sequence[str], rows: Rows) -> str:
    lines = [
        f"\\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        "\\toprule",
        _latex_row(header),
        "\\midrule",
        *map(_latex_row, rows),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines)


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "×": r"$\times$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_latex_cell, cells)) + r" \\"


def _latex_cell(text: str) -> str:
    bold = text.startswith("\0")
    escaped = "".join(_LATEX.get(sign, sign) for sign in text.removeprefix("\0"))
    return rf"\textbf{{{escaped}}}" if bold else escaped


# -- cells


def figures(comparison: Comparison, bold: Callable[[str], str]) -> tuple[list[str], Rows]:
    """Return header and rows of the figures: groups, then baselines.

    Args:
        comparison: The runs.
        bold: What marks the best of a row and those not resolved to be worse.
    """
    baselines = list(dict.fromkeys(name for row in comparison.rows for name in row.baselines))
    header = ["metric", *(titled(comparison, label) for label in comparison.groups), *baselines]
    rows = []
    for row in comparison.rows:
        cells = [_cell(row.cells[label], bold) for label in comparison.groups]
        floors = [figure_of(row.baselines[name]) if name in row.baselines else "" for name in baselines]
        rows.append([_name(row), *cells, *floors])
    return header, rows


def differences(comparison: Comparison) -> tuple[list[str], Rows]:
    """Return header and rows of the differences to the first group, one row a metric and group."""
    reference = comparison.groups[0]
    header = ["metric", "difference", "of", f"{100 * comparison.level:g} % interval", "images", "resolved"]
    rows = []
    for row in comparison.rows:
        for label, difference in row.differences.items():
            if difference is not None:
                rows.append([row.metric, *_difference(difference, f"{label} − {reference}")])
    return header, rows


def titled(comparison: Comparison, label: str) -> str:
    """Return a group's title, with the number of its seeds if there are several."""
    seeds = comparison.seeds[label]
    return f"{label} ({seeds} seeds)" if seeds > 1 else label


def legend(comparison: Comparison, mark: str) -> list[str]:
    """Return what the figures mean, in sentences; ``mark`` is how the best are marked."""
    several = max(comparison.seeds.values()) > 1
    spread = "standard error over images"
    if several:
        spread += " (of one run) or standard deviation over seeds (of several)"
    level = f"{100 * comparison.level:g} %"
    paired = all(d.paired for row in comparison.rows for d in row.differences.values() if d is not None)
    how = "paired bootstrap over the same images" if paired else "bootstrap over the images of each run"
    lines = [
        f"Mean ± {spread}; {comparison.images:,} images. {mark}: the best, and what is not resolved to be worse. "
        f"Intervals: {level}, {how}{', and over seeds' if several else ''}; resolved means that it leaves out 0."
    ]
    if uneven := [row.metric for row in comparison.rows if _uneven(row)]:
        lines.append(
            f"Runs skip different images ({', '.join(uneven)}): means are over what each run scored, differences over "
            "the images that both did, so that these need not agree."
        )
    if not any(each is not None for row in comparison.rows for each in row.differences.values()):
        lines.append(
            f"No run has a metric in common with {comparison.groups[0]}, so that there are no differences."
        )
    if few := [label for label, seeds in comparison.seeds.items() if 1 < seeds < FEW_SEEDS]:
        lines.append(f"Fewer than {FEW_SEEDS} seeds ({', '.join(few)}): the true intervals are wider.")
    images = comparison.baseline_images
    if images is not None and any(row.baselines for row in comparison.rows):
        lines.append(f"Baselines that need no training: on the first {images:,} images.")
    if comparison.unsaid:
        lines.append(
            f"Not every run says of its likelihood: {', '.join(comparison.unsaid)}; these may differ."
        )
    if comparison.unequal:
        lines.append(f"NOT SCORED ALIKE (--force): {'; '.join(comparison.unequal)}.")
    elif comparison.stamp:
        lines.append(f"Protocol stamp of every run: {comparison.stamp}.")
    return lines


def _uneven(row: Row) -> bool:
    """Tell whether a row's groups were scored on different numbers of images, or on more than a difference is of."""
    scored = {cell.n / cell.seeds for cell in row.cells.values() if cell is not None}
    compared = {each.n for each in row.differences.values() if each is not None and each.paired}
    return len(scored | compared) > 1


def figure_of(value: float) -> str:
    """Return a number with three digits."""
    return "–" if math.isnan(value) else f"{value:.3g}".replace("-", "−")


def _name(row: Row) -> str:
    arrow = {True: " ↑", False: " ↓", None: ""}[row.higher_is_better]
    return row.metric + arrow


def _cell(cell: Cell | None, bold: Callable[[str], str]) -> str:
    if cell is None:
        return "n/a"
    text = figure({"mean": cell.mean, "stderr": cell.spread})
    return bold(text) if cell.best else text


def _difference(difference: Difference, of: str) -> list[str]:
    interval = f"{figure_of(difference.low)} to {figure_of(difference.high)}"
    resolved = "yes" if difference.resolved else "no"
    return [figure_of(difference.mean), of, interval, f"{difference.n:,}", resolved]
