"""The report of an evaluation: one HTML file that needs nothing else, on screen or on paper."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from metrics.evaluation.plots import HEIGHT, WIDTH, plot_rows
from metrics.evaluation.result import Evaluation, Summary
from metrics.table import METRICS
from multiobj_data.files import replacing

if TYPE_CHECKING:
    from jinja2 import Environment

_DIGITS = 6  # behind the point; smaller figures have an exponent


def write_report(evaluation: Evaluation, path: str | os.PathLike[str]) -> None:
    """Write an evaluation as one self-contained HTML file; pictures are inlined, nothing is fetched.

    Args:
        evaluation: What `metrics.evaluate` returned.
        path: The file; an older one is replaced at once, never half written.

    Raises:
        UsageError: If the folder does not exist.
    """
    text = render_report(evaluation)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def render_report(evaluation: Evaluation) -> str:
    """Return the HTML that `write_report` writes."""
    return (
        _templates()
        .get_template("report.html.j2")
        .render(
            e=evaluation,
            definitions=evaluation.protocol["definitions"],
            kinds=[name for name, spec in METRICS.items() if "log_likelihood" in spec.needs],
            base={} if evaluation.baselines is None else evaluation.baselines.metrics,
            confusion=_confusion_rows(evaluation.confusion),
            plots=plot_rows(evaluation),
            width=WIDTH,
            height=HEIGHT,
            groups=[
                (f"Worst scenes by {evaluation.ranked_by}", evaluation.worst),
                (f"Best scenes by {evaluation.ranked_by}", evaluation.best),
            ],
            generation=list(_leaves(evaluation.generation or {})),
            facts=_facts(evaluation),
        )
    )


def _templates() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    def read(name: str) -> str:
        return (resources.files("metrics") / "evaluation" / "templates" / name).read_text(encoding="utf-8")

    environment = Environment(
        loader=FunctionLoader(read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure": figure,
        "value": _value,
        "short": lambda number: _value(number, 3),
        "picture": _picture,
        "label_picture": _label_picture,
        "corners": _corners,
    }
    return environment


def figure(summary: Summary) -> str:
    """Return ``mean ± stderr``, rounded to the first two digits of the standard error."""
    mean, stderr = summary["mean"], summary["stderr"]
    if math.isnan(mean):
        return "–"
    if not stderr > 1e-9 * abs(mean):  # none, or rounding of equal values
        return _value(mean) + ("" if math.isnan(stderr) else " ± 0")
    digits = max(0, 1 - math.floor(math.log10(stderr)))
    if digits > _DIGITS:
        power = math.floor(math.log10(max(abs(mean), stderr)))
        mean, stderr, digits = mean / 10.0**power, stderr / 10.0**power, digits + power
        return f"({mean:.{digits}f} ± {stderr:.{digits}f})e{power}".replace("-", "−")
    return f"{mean:,.{digits}f} ± {stderr:,.{digits}f}".replace("-", "−")


def _value(number: float, digits: int = 4) -> str:
    return "–" if math.isnan(number) else f"{number:.{digits}g}".replace("-", "−")


def _picture(image: np.ndarray) -> str:
    """Return ``[H, W, C]``, uint8 or floats in [0, 1], as a PNG data URL.

    Three channels are shown as RGB, four as RGBA, of any other number the first as grey.
    """
    from PIL import Image

    if image.dtype != np.uint8:
        image = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image if image.shape[-1] in (3, 4) else image[..., 0]).save(
        buffer, format="PNG", optimize=True
    )
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


_PALETTE = np.array(
    [
        (0, 176, 255), (255, 176, 0), (46, 184, 114), (236, 72, 120), (160, 110, 245), (250, 230, 80),
        (0, 205, 190), (240, 120, 60), (150, 200, 60), (205, 130, 210),
    ],
    np.uint8,
)  # fmt: skip


def _label_picture(labels: np.ndarray) -> str:
    """Return a label map ``[H, W]`` in colours, 0 in dark grey, as a PNG data URL."""
    colours = np.concatenate([np.full((1, 3), 40, np.uint8), np.resize(_PALETTE, (255, 3))])
    return _picture(colours[labels])


def _corners(boxes: np.ndarray | None) -> list[dict[str, float]]:
    """Return the finite boxes ``[K, 4]`` as SVG rectangles."""
    if boxes is None:
        return []
    kept = boxes[np.isfinite(boxes).all(-1)].round(2).tolist()
    return [
        {"x": x0, "y": y0, "width": round(max(x1 - x0, 0), 2), "height": round(max(y1 - y0, 0), 2)}
        for x0, y0, x1, y1 in kept
    ]


def _confusion_rows(confusion: Mapping[str, list] | None) -> list[dict[str, Any]]:
    """Return one entry a true count that occurs: total, accuracy, and cells with their share of the row."""
    rows: list[dict[str, Any]] = []
    if confusion is None:
        return rows
    for true, counts in zip(confusion["true"], confusion["table"], strict=True):
        if total := sum(counts):
            cells = [
                {"n": n, "share": n / total, "right": predicted == true}
                for predicted, n in zip(confusion["predicted"], counts, strict=True)
            ]
            right = sum(cell["n"] for cell in cells if cell["right"])
            rows.append({"true": true, "total": total, "accuracy": right / total, "cells": cells})
    return rows


def _facts(evaluation: Evaluation) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return what was evaluated, how and where, as titled lists of names and values."""
    protocol = {name: value for name, value in evaluation.protocol.items() if name != "definitions"}
    protocol |= {"stamp": evaluation.stamp["sha256"]} if evaluation.stamp else {}
    sections = {"Protocol": protocol, "Data": evaluation.dataset, "Environment": evaluation.environment}
    return [
        (title, [(name.replace("_", " "), _text(value)) for name, value in facts.items()])
        for title, facts in sections.items()
        if facts
    ]


def _leaves(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the numbers and texts of nested mappings with the way to each."""
    for name, value in values.items():
        label = f"{path} {name}".strip().replace("_", " ")
        if isinstance(value, Mapping):
            yield from _leaves(value, label)
        else:
            yield label, _value(value) if isinstance(value, float) else _text(value)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return "–" if value is None else str(value)
