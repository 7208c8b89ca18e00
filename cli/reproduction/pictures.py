"""What a cell looks like: reconstructions with boxes, and samples of the model."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from multiobj_data.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from multiobj_data.scenes import Prediction, Scenes

_PRESENT = 0.5
_COLUMNS = 8


def draw_reconstructions(scenes: Scenes, prediction: Prediction, path: Path, title: str) -> None:
    """Draw scenes with their true boxes above what the model makes of them, with the boxes of what it sees there."""
    from matplotlib.figure import Figure

    n = len(scenes)
    figure = Figure(figsize=(1.3 * n, 3.5), layout="constrained")
    figure.suptitle(title, fontsize=10)
    upper, lower = figure.subplots(2, n, squeeze=False)
    there = prediction.presence >= _PRESENT
    for i in range(n):
        _show(upper[i], scenes.image[i] / 255, scenes.boxes[i, : scenes.count[i]])
        upper[i].set_title(f"{scenes.count[i]} objects", fontsize=8)
        _show(lower[i], prediction.reconstruction[i], prediction.boxes[i][there[i]])
        lower[i].set_title(f"inferred {prediction.count[i]}", fontsize=8)
    _save(figure, path)


def draw_samples(images: np.ndarray, windows: np.ndarray, count: np.ndarray, path: Path, title: str) -> None:
    """Draw images of a model, ``[n, H, W, C]`` in [0, 1], with the windows ``[n, K, 4]`` of their objects."""
    from matplotlib.figure import Figure

    rows = -(-len(images) // _COLUMNS)
    figure = Figure(figsize=(1.3 * _COLUMNS, 1.3 * rows + 0.5), layout="constrained")
    figure.suptitle(title, fontsize=10)
    for i, axes in enumerate(figure.subplots(rows, _COLUMNS, squeeze=False).ravel()):
        axes.axis("off")
        if i < len(images):
            _show(axes, images[i], windows[i, : count[i]])
    _save(figure, path)


def _show(axes: Axes, image: np.ndarray, boxes: np.ndarray) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    height, width, channels = image.shape
    picture = image[..., 0] if channels == 1 else image
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    for k, (x0, y0, x1, y1) in enumerate(boxes):
        colour = colormaps["tab10"](k % 10)
        axes.add_patch(
            Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, lw=1.2, edgecolor=colour)
        )
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))  # windows may reach beyond the canvas
    axes.axis("off")


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    write_atomically(path, buffer.getvalue())
