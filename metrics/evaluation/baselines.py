"""Predictors that need no training, so that every table has a floor, a few rules of thumb, and a ceiling.

Each is given images alone, as models are, and answers with masks and all that follows from them: boxes,
presence, count and, as the reconstruction, each segment in its mean colour. Answers depend on the image alone,
not on its batch; what is random is keyed by the image's bytes. Slot 0 is the background.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from metrics.evaluation.clusters import cluster_pixels
from multiobj_data.arrays import Array, like, to_numpy
from multiobj_data.errors import UsageError
from multiobj_data.scenes import Prediction, Scenes, expect

_CHUNK_PIXELS = 2**18  # worked on at once


@dataclass(frozen=True)
class Baseline:
    """A predictor made of one rule that labels pixels.

    Attributes:
        rule: uint8 ``[B, H, W, C]`` and a number of slots to whole numbers ``[B, H, W]`` below that number.
        slots: How many slots, the background among them.
        description: What it does, in one line.
        find_background: Make the segment with most border pixels slot 0; otherwise the rule's own 0 is.
    """

    rule: Callable[[np.ndarray, int], np.ndarray]
    slots: int
    description: str
    find_background: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.slots, int) or not 1 <= self.slots <= 256:
            raise UsageError(f"slots: expected a whole number from 1 to 256, got {self.slots!r}.")

    def labels(self, images: Array) -> np.ndarray:
        """Return the label map uint8 ``[B, H, W]`` of uint8 ``images [B, H, W, C]``; 0 is the background."""
        pictures = _pictures(images)
        size = max(1, _CHUNK_PIXELS // max(1, pictures[0, ..., 0].size)) if len(pictures) else 1
        parts = [self._label(pictures[i : i + size]) for i in range(0, len(pictures), size)]
        return np.concatenate(parts) if parts else np.zeros(pictures.shape[:3], np.uint8)

    def predict(self, images: Array) -> Prediction:
        """Return the answer for uint8 ``images [B, H, W, C]``, in their library and on their device.

        Raises:
            ValueError: If ``images`` is of another type or shape.
        """
        labels = self.labels(images)
        answer = prediction_of_labels(labels, self.slots, _pictures(images))
        return replace(answer, **{name: like(array, images) for name, array in answer.arrays().items()})

    def _label(self, images: np.ndarray) -> np.ndarray:
        labels = self.rule(images, self.slots)
        return (_background_first(labels, self.slots) if self.find_background else labels).astype(np.uint8)


def prediction_of_labels(labels: np.ndarray, slots: int, images: np.ndarray) -> Prediction:
    """Return all that follows from a segmentation.

    Args:
        labels: Whole numbers ``[B, H, W]`` from 0, the background, to ``slots - 1``.
        slots: How many masks to return; those without pixels hold no object.
        images: uint8 ``[B, H, W, C]``.

    Returns:
        Masks ``[B, slots, H, W]`` of zeros and ones, and for each but the first its presence and box; the
        image with each segment in its mean colour.
    """
    masks = labels[:, None] == np.arange(slots, dtype=labels.dtype)[:, None, None]  # [B, S, H, W]
    presence = masks[:, 1:].any((2, 3))  # [B, S - 1]
    return Prediction(
        presence=presence.astype(np.float32),
        count=presence.sum(1),
        masks=masks.astype(np.float32),
        background_slots=(0,),
        boxes=_boxes(masks[:, 1:]),
        reconstruction=_mean_colours(labels, slots, images),
    )


def truth_prediction(scenes: Scenes) -> Prediction:
    """Return the truth in the form of an answer: what a perfect model would score.

    Masks are the visible segments, background labels first; the reconstruction is the image itself.
    """
    labels = scenes.background_segments + scenes.boxes.shape[1]
    masks = scenes.segments[:, None] == np.arange(labels)[:, None, None]  # [B, labels, H, W]
    # An object whose box nobody knows must still have one; metrics skip it for its true box is NaN.
    boxes = np.where(np.isfinite(scenes.boxes).all(-1, keepdims=True), scenes.boxes, 0)
    return Prediction(
        presence=scenes.present.astype(np.float32),
        count=scenes.count,
        masks=masks.astype(np.float32),
        background_slots=tuple(range(scenes.background_segments)),
        boxes=boxes.astype(np.float32),
        reconstruction=(scenes.image / 255).astype(np.float32),
    )


class Truth:
    """Answers with the truth: the ceiling of every metric."""

    def predict_scenes(self, scenes: Scenes) -> Prediction:
        """Return `truth_prediction`."""
        return truth_prediction(scenes)


# -- the rules


def one_slot(images: np.ndarray, slots: int) -> np.ndarray:
    """Put everything in slot 0."""
    return np.zeros(images.shape[:3], np.uint8)


def random_cells(images: np.ndarray, slots: int) -> np.ndarray:
    """Cut each image into 1 to ``slots`` cells around random points, each pixel to the nearest (Voronoi).

    Regions that hang together are what chance should look like: pixels labelled one by one overlap with
    nothing, and any model would shine beside them.
    """
    _, height, width, _ = images.shape
    yx = np.indices((height, width)).reshape(2, -1).T + 0.5  # [P, 2]
    labels = np.empty((len(images), height * width), np.uint8)
    for row, image in zip(labels, images, strict=True):
        rng = np.random.default_rng(zlib.crc32(image.tobytes()))
        points = rng.random((rng.integers(1, slots + 1), 2)) * (height, width)
        row[:] = ((yx[:, None] - points) ** 2).sum(-1).argmin(1)
    return labels.reshape(images.shape[:3])


def colour_components(images: np.ndarray, slots: int) -> np.ndarray:
    """Take the commonest colour of the border for the background; what hangs together elsewhere is an object.

    Pixels count as background up to `_TOLERANCE` grey levels away in every channel. Neighbours are the eight
    around a pixel. The ``slots - 1`` largest pieces are kept, the others belong to the background.
    """
    from scipy import ndimage

    off = np.abs(images.astype(np.int16) - _border_colour(images)[:, None, None]).max(-1) > _TOLERANCE
    within_an_image = np.zeros((3, 3, 3), bool)
    within_an_image[1] = True
    pieces, n = ndimage.label(off, within_an_image)  # [B, H, W], numbered through the whole batch
    sizes = np.bincount(pieces.ravel(), minlength=n + 1)
    owner = np.zeros(n + 1, np.int64)  # the image of each piece
    owner[pieces] = np.arange(len(images))[:, None, None]
    order = 1 + np.lexsort((-sizes[1:], owner[1:]))  # pieces by image, the largest first
    start = np.searchsorted(owner[order], owner[order])
    rank = np.zeros(n + 1, np.int64)
    rank[order] = 1 + np.arange(n) - start
    return np.where(rank < slots, rank, 0)[pieces]


_TOLERANCE = 10  # grey levels: above the noise of compression, below what the eye sees at once


def _border_colour(images: np.ndarray) -> np.ndarray:
    """Return the commonest colour of the border, int16 ``[B, C]``: the mean of the fullest bin of 16 levels."""
    border = np.concatenate(
        [images[:, 0], images[:, -1], images[:, 1:-1, 0], images[:, 1:-1, -1]], axis=1
    )  # [B, N, C]
    colours = np.empty((len(images), images.shape[-1]), np.int16)
    for row, pixels in zip(colours, border, strict=True):
        _, which, counts = np.unique(pixels // 16, axis=0, return_inverse=True, return_counts=True)
        row[:] = np.rint(pixels[which.ravel() == counts.argmax()].mean(0))
    return colours


# -- label maps


def _pictures(images: Array) -> np.ndarray:
    expect("images", images, (None, None, None, None), "u")
    pictures = to_numpy(images)
    if pictures.dtype != np.uint8:
        raise ValueError(f"images: expected uint8, got {pictures.dtype}.")
    return pictures


def _background_first(labels: np.ndarray, slots: int) -> np.ndarray:
    """Exchange label 0 with the one that has most pixels on the border: each frame has more ground than object."""
    border = np.concatenate([labels[:, 0], labels[:, -1], labels[:, 1:-1, 0], labels[:, 1:-1, -1]], axis=1)
    counts = (border[:, None] == np.arange(slots)[:, None]).sum(-1)  # [B, slots]
    ground = counts.argmax(1)[:, None, None]
    return np.where(labels == ground, 0, np.where(labels == 0, ground, labels))


def _boxes(masks: np.ndarray) -> np.ndarray:
    """Return tight half-open boxes float32 ``[B, S, 4]`` of bool ``masks [B, S, H, W]``; zeros if empty."""
    sides = []
    for axis in (2, 3):  # over rows: which columns are met, and the other way round
        met = np.asarray(masks.any(axis))  # [B, S, W or H]
        low, high = met.argmax(-1), met.shape[-1] - met[..., ::-1].argmax(-1)
        sides.append((np.where(met.any(-1), low, 0), np.where(met.any(-1), high, 0)))
    (x0, x1), (y0, y1) = sides
    return np.stack([x0, y0, x1, y1], axis=-1).astype(np.float32)


def _mean_colours(labels: np.ndarray, slots: int, images: np.ndarray) -> np.ndarray:
    """Return the image with each segment in its mean colour, float32 ``[B, H, W, C]`` in [0, 1]."""
    b = len(labels)
    where = (np.arange(b)[:, None, None] * slots + labels).ravel()
    sizes = np.maximum(np.bincount(where, minlength=b * slots), 1)
    channels = [
        np.bincount(where, images[..., c].ravel(), minlength=b * slots) / sizes / 255
        for c in range(images.shape[-1])
    ]
    return np.stack(channels, axis=-1)[where].reshape(images.shape).astype(np.float32)


BASELINES: dict[str, Baseline] = {
    "one-slot": Baseline(one_slot, 1, "everything in one slot: one segment, no object"),
    "chance": Baseline(
        random_cells, 7, "random cells (Voronoi), as many as slots at most", find_background=True
    ),
    "kmeans": Baseline(cluster_pixels, 5, "k-means on colour and position", find_background=True),
    "components": Baseline(
        colour_components, 11, "connected pieces that are not of the border's commonest colour"
    ),
}
"""Name -> what answers `predict`; the truth needs the scenes themselves, see `truth_prediction`."""
