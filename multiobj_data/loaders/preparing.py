"""From one scene of a public set to one of ours: counted, cut, resized, its objects numbered anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from multiobj_data.errors import DataError
from multiobj_data.loaders.protocols import CountRule, Protocol
from multiobj_data.loaders.raw import Raw
from multiobj_data.loaders.resampling import resize_image, resize_labels
from multiobj_data.scenes import Scenes


@dataclass(frozen=True)
class Selection:
    """Which scenes are kept, by their number of objects.

    Attributes:
        rule: What is counted.
        least: Fewest objects.
        most: Most objects; ``None`` for no bound.
        min_pixels: Pixels from which an object counts as visible (rules ``visible*``).
    """

    rule: CountRule = "none"
    least: int = 0
    most: int | None = None
    min_pixels: int = 1

    def bound(self, slots: int) -> int:
        """Return K, the most objects that a stored scene can have, where the set's own have up to ``slots``."""
        counts_all = self.rule.startswith("source") or (self.rule != "none" and self.min_pixels == 1)
        return slots if self.most is None or not counts_all else min(slots, self.most)

    def keeps(self, raw: Raw, cut: np.ndarray) -> bool:
        """Return whether a scene is kept; ``cut`` is the part of its label map that is."""
        if self.rule == "none":
            return True
        count = self._count(raw, cut)
        return self.least <= count <= (self.most if self.most is not None else count)

    def _count(self, raw: Raw, cut: np.ndarray) -> int:
        if self.rule == "source":
            return int(raw.present[raw.background :].sum())
        if self.rule == "source-with-background":
            return int(raw.present.sum())
        labels = raw.segments if self.rule == "visible-before-crop" else cut
        pixels = np.bincount(labels.reshape(-1), minlength=raw.entities)[raw.background :]
        return int((pixels >= self.min_pixels).sum())


@dataclass(frozen=True)
class Prepared:
    """One scene, ready to be stored.

    Attributes:
        image: uint8 ``[H, W, C]``.
        segments: uint8 ``[H, W]``; background labels first, then the objects that are visible, in source order.
        boxes: float32 ``[n, 4]``.
        background: How many labels are background.
        factors: Name -> ``[n, ...]``.
        scene_factors: Name -> value.
    """

    image: np.ndarray
    segments: np.ndarray
    boxes: np.ndarray
    background: int
    factors: Mapping[str, np.ndarray]
    scene_factors: Mapping[str, np.ndarray]


def prepare(raw: Raw, protocol: Protocol, selection: Selection, *, cropped: bool) -> Prepared | None:
    """Apply a protocol to a scene.

    Args:
        raw: The scene.
        protocol: What is done.
        selection: Which scenes are kept.
        cropped: Whether the reader has cut the scene already.

    Returns:
        The scene, or ``None`` if it is not kept.
    """
    crop = None if cropped else protocol.crop
    image, cut = raw.image, raw.segments
    if crop is not None:  # copied, so that the rest can go
        image, cut = image[crop].copy(), cut[crop].copy()
    if not selection.keeps(raw, cut):
        return None
    labels = resize_labels(cut, protocol.size, protocol.mask_filter)
    pixels, boxes = _measure(labels, raw.entities)
    visible = raw.background + np.flatnonzero(pixels[raw.background :])  # entities, [n]
    number = np.zeros(256, np.uint8)  # entity -> label
    number[: raw.background] = np.arange(raw.background)
    number[visible] = raw.background + np.arange(len(visible))
    more = {"segments_source": number[cut]} if protocol.keep_labels else {}
    return Prepared(
        image=resize_image(image, protocol.size, protocol.image_filter),
        segments=number[labels],
        boxes=boxes[visible],
        background=raw.background,
        factors={
            **{name: values[visible] for name, values in raw.factors.items()},
            "pixels": pixels[visible].astype(np.int32),
            "source_entity": visible.astype(np.int16),
        },
        scene_factors={
            **{name: np.asarray(value) for name, value in raw.scene_factors.items()},
            "source_index": np.asarray(raw.index, np.int64),
            "source_count": np.asarray(raw.present[raw.background :].sum(), np.int16),
            **more,
        },
    )


def _measure(labels: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for labels ``0 .. n - 1`` the number of pixels, ``[n]``, and the tight boxes, float32 ``[n, 4]``."""
    height, width = labels.shape
    first_of_row, first_of_column = _bins(height, width, n)
    by_row = np.bincount((labels + first_of_row).reshape(-1), minlength=height * n).reshape(height, n)
    by_column = np.bincount((labels + first_of_column).reshape(-1), minlength=width * n).reshape(width, n)
    boxes = np.empty((n, 4), np.float32)
    for k, has in enumerate((by_column > 0, by_row > 0)):
        boxes[:, k] = has.argmax(0)
        boxes[:, k + 2] = len(has) - has[::-1].argmax(0)
    return by_row.sum(0), boxes


@cache
def _bins(height: int, width: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first of each row's and of each column's n bins: int64 ``[height, 1]`` and ``[1, width]``."""
    return n * np.arange(height)[:, None], n * np.arange(width)[None]


def collect(parts: Sequence[Prepared], slots: int) -> Scenes:
    """Join scenes; objects are padded to ``slots``.

    Raises:
        DataError: If a scene has more objects.
    """
    count = np.array([len(part.boxes) for part in parts], np.int64)
    if count.max() > slots:
        index = parts[int(count.argmax())].scene_factors["source_index"]
        raise DataError(
            f"scene {index} of the source shows {count.max()} objects, more than the {slots} that this set can have."
        )
    row, column = np.nonzero(np.arange(slots) < count[:, None])  # in the order of the objects
    first = parts[0]
    factors = {}
    for name, example in first.factors.items():
        missing = np.nan if example.dtype.kind == "f" else -1
        kind = np.int16 if example.dtype.kind in "ub" else example.dtype  # so that -1 can say "absent"
        values = np.full((len(parts), slots, *example.shape[1:]), missing, kind)
        values[row, column] = np.concatenate([part.factors[name] for part in parts])
        factors[name] = values
    boxes = np.full((len(parts), slots, 4), np.nan, np.float32)
    boxes[row, column] = np.concatenate([part.boxes for part in parts])
    return Scenes(
        image=np.stack([part.image for part in parts]),
        count=count,
        segments=np.stack([part.segments for part in parts]),
        boxes=boxes,
        background_segments=first.background,
        factors=factors,
        scene_factors={
            name: np.stack([part.scene_factors[name] for part in parts]) for name in first.scene_factors
        },
    )
