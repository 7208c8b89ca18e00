"""The contact sheet: a page that shows what is in a data set."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from multiobj_data.files import write_atomically
from multiobj_data.scenes import Scenes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from multiobj_data.loading import SceneSource

_COLUMNS, _FEW_COLUMNS = 8, 4  # few for scenes wider than _WIDE pixels
_WIDE = 96
_PANEL = 672  # pixels that a panel has for its scenes; a finer mosaic would lose lines when it is shown
_GAP = 2  # pixels between scenes
_MOST_BYTES = 1 << 27  # of images
_COLOURS = "tab10"  # objects, by number


def contact_sheet(scenes: Scenes, path: Path, title: str) -> None:
    """Draw scenes with boxes, their label maps, and histograms of counts and overlap, as a PNG.

    Args:
        scenes: What to show: the first 64 (16 if they are large) as pictures, all of them in the histograms.
        path: The picture's file.
        title: First line of the page.
    """
    from matplotlib.figure import Figure

    tiles = _Tiles.of(scenes)
    shown = scenes[: tiles.columns**2]
    height = 6.8 / tiles.columns * -(-len(shown) // tiles.columns)  # inches
    figure = Figure(figsize=(14, 1.5 + height + 2.6), layout="constrained")
    figure.suptitle(title, fontsize=11)
    parts = figure.subfigures(2, 1, height_ratios=[height + 0.5, 2.6], squeeze=False)
    panels, histograms = parts[:, 0]
    left, right = panels.subplots(1, 2)
    _show_images(left, shown, tiles)
    _show_segments(right, shown, tiles)
    counts, overlap = histograms.subplots(1, 2)
    _count_histogram(counts, scenes)
    _overlap_histogram(overlap, scenes)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    write_atomically(path, buffer.getvalue())


@dataclass(frozen=True)
class _Tiles:
    """How scenes are laid out: so many a row, each shrunk to ``height`` times ``width`` where it is larger."""

    columns: int
    height: int
    width: int

    @classmethod
    def of(cls, scenes: Scenes) -> _Tiles:
        side = max(scenes.image.shape[1:3])
        columns = _COLUMNS if side <= _WIDE else _FEW_COLUMNS
        share = min(1.0, (_PANEL // columns - _GAP) / side)
        height, width = (max(1, round(share * extent)) for extent in scenes.image.shape[1:3])
        return cls(columns, height, width)

    def mosaic(self, pictures: np.ndarray, *, averaging: bool) -> np.ndarray:
        """Put ``[n, H, W, C]`` into one picture; they shrink by averaging, or by picking the nearest pixel."""
        rows = -(-len(pictures) // self.columns)
        shape = rows * (self.height + _GAP), self.columns * (self.width + _GAP), pictures.shape[-1]
        page = np.full(shape, 96, pictures.dtype)
        for i, picture in enumerate(pictures):
            y, x = self.corner(i)
            page[y : y + self.height, x : x + self.width] = self._shrunk(picture, averaging)
        return page[:-_GAP, :-_GAP]

    def corner(self, i: int) -> tuple[int, int]:
        return i // self.columns * (self.height + _GAP), i % self.columns * (self.width + _GAP)

    def _shrunk(self, picture: np.ndarray, averaging: bool) -> np.ndarray:
        from PIL import Image

        if picture.shape[:2] == (self.height, self.width):
            return picture
        how = Image.Resampling.BOX if averaging else Image.Resampling.NEAREST
        planes = [
            Image.fromarray(plane).resize((self.width, self.height), how)
            for plane in np.moveaxis(picture, -1, 0)
        ]
        return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def _show_images(axes: Axes, scenes: Scenes, tiles: _Tiles) -> None:
    from matplotlib.patches import Rectangle

    _, h, w, c = scenes.image.shape
    page = tiles.mosaic(scenes.image, averaging=True)
    axes.imshow(page.squeeze(-1) if c == 1 else page, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    colours = _palette()
    share = np.array([tiles.width / w, tiles.height / h] * 2)
    for i, boxes in enumerate(scenes.boxes):
        y, x = tiles.corner(i)
        for k in range(scenes.count[i]):
            x0, y0, x1, y1 = boxes[k] * share
            outline = Rectangle(
                (x + x0 - 0.5, y + y0 - 0.5), x1 - x0, y1 - y0, fill=False, lw=0.8, edgecolor=colours[k % 10]
            )
            axes.add_patch(outline)
    axes.set_title(f"{len(scenes)} scenes, with tight boxes", fontsize=9)
    axes.axis("off")


def _show_segments(axes: Axes, scenes: Scenes, tiles: _Tiles) -> None:
    background = np.linspace(0, 0.35, scenes.background_segments)[:, None].repeat(3, 1)
    objects = _palette()[np.arange(scenes.boxes.shape[1]) % 10]
    table = np.rint(255 * np.concatenate([background, objects])).astype(np.uint8)
    axes.imshow(tiles.mosaic(table[scenes.segments], averaging=False), interpolation="nearest")
    axes.set_title("label maps: who owns each visible pixel", fontsize=9)
    axes.axis("off")


def _palette() -> np.ndarray:
    from matplotlib import colormaps

    return np.array([colormaps[_COLOURS](i)[:3] for i in range(10)])


def _count_histogram(axes: Axes, scenes: Scenes) -> None:
    values, heights = np.unique(scenes.count, return_counts=True)
    bars = axes.bar(values, heights, color="0.4")
    axes.bar_label(bars, fontsize=8)
    axes.set_xticks(values)
    _label(axes, f"objects a scene ({len(scenes):,} scenes)", "objects", "scenes")


def _overlap_histogram(axes: Axes, scenes: Scenes) -> None:
    overlap = box_overlaps(scenes)
    if len(overlap) == 0:
        axes.text(0.5, 0.5, "no scene has two objects", ha="center", va="center", transform=axes.transAxes)
        axes.axis("off")
        return
    axes.hist(overlap, bins=np.linspace(0, 1, 41).tolist(), color="0.4", log=True)
    axes.axvline(0, color="0.8", lw=0.5)
    visible = scenes.factors.get("visible_fraction")
    hidden = (
        ""
        if visible is None
        else f"; {np.nanmean(visible < 1, where=scenes.present):.1%} of objects partly hidden"
    )
    _label(
        axes,
        f"overlap: {np.mean(overlap > 0):.1%} of pairs have intersecting boxes{hidden}",
        "box IoU of a pair",
        "pairs",
    )


def box_overlaps(scenes: Scenes) -> np.ndarray:
    """Return the intersection over union of the tight boxes of every pair of objects, float ``[pairs]``."""
    first, second = np.triu_indices(scenes.boxes.shape[1], k=1)
    a, b = scenes.boxes[:, first], scenes.boxes[:, second]  # [B, pairs, 4], NaN where absent
    shared = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None).prod(
        -1
    )
    area = [(box[..., 2:] - box[..., :2]).prod(-1) for box in (a, b)]
    iou = shared / (area[0] + area[1] - shared)
    return iou[np.isfinite(iou)]


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def sheet_of(source: SceneSource, path: Path, title: str, first: int = 0) -> None:
    """Draw the contact sheet of a source's scenes from one on: up to 2,048 of them, fewer if they are large."""
    most = max(64, min(2048, _MOST_BYTES // math.prod(source.image_shape)))
    contact_sheet(source.scenes(np.arange(first, min(first + most, len(source)))), path, title)
