"""From one scene of a public set to one of ours: counted, cut, resized, its objects numbered anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from multiobj_data.errors import DataError
from multiobj_data.loaders.protocols import CountRule, Protocol
from multiobj_data.loaders.raw import Raw, count_rows
from multiobj_data.loaders.resampling import resize_image, resize_labels
from multiobj_data.scenes import Scenes

_BITS = 16  # labels that are looked for at once


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
        return self.rule == "none" or self._in_bounds(self._count(raw, cut))

    def may_keep(self, present: np.ndarray, background: int) -> bool:
        """Return whether a scene may be kept, of which no more is known than what the source says is there."""
        if not self.rule.startswith("source"):
            return True
        return self._in_bounds(self._source_count(present, background))

    def _in_bounds(self, count: int) -> bool:
        return self.least <= count <= (self.most if self.most is not None else count)

    def _source_count(self, present: np.ndarray, background: int) -> int:
        return int((present if self.rule == "source-with-background" else present[background:]).sum())

    def _count(self, raw: Raw, cut: np.ndarray) -> int:
        if self.rule.startswith("source"):
            return self._source_count(raw.present, raw.background)
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
    return prepare_all([raw], protocol, selection, cropped=cropped)[0]


def prepare_all(
    raws: Sequence[Raw], protocol: Protocol, selection: Selection, *, cropped: bool
) -> list[Prepared | None]:
    """Do what `prepare` does to several scenes, those of equal pictures and entities together."""
    prepared: list[Prepared | None] = [None] * len(raws)
    crop = None if cropped else protocol.crop
    groups: dict[tuple[int, ...], list[tuple[int, Raw, np.ndarray]]] = {}
    for i, raw in enumerate(raws):
        cut = raw.segments if crop is None else raw.segments[crop]
        if selection.keeps(raw, cut):
            groups.setdefault((raw.entities, raw.background, *cut.shape), []).append((i, raw, cut))
    for group in groups.values():
        cuts = np.stack([cut for _, _, cut in group])
        scenes = _prepare_alike([raw for _, raw, _ in group], cuts, crop, protocol)
        for (i, _, _), scene in zip(group, scenes, strict=True):
            prepared[i] = scene
    return prepared


def _prepare_alike(
    raws: Sequence[Raw], cuts: np.ndarray, crop: tuple[slice, slice] | None, protocol: Protocol
) -> Iterator[Prepared]:
    """Prepare scenes of one kind, whose label maps are ``cuts`` ``[B, H, W]``."""
    n, background = raws[0].entities, raws[0].background
    labels = resize_labels(cuts, protocol.size, protocol.mask_filter)
    pixels, boxes = _measure(labels, n)
    visible = pixels > 0
    visible[:, :background] = False
    number = np.zeros((len(raws), n), np.uint8)  # entity -> label
    number[:, :background] = np.arange(background)
    number[visible] = (background - 1 + visible.cumsum(1))[visible]
    segments = _translate(number, labels, pixels > 0)
    kept = _translate(number, cuts) if protocol.keep_labels else None
    for i, raw in enumerate(raws):
        own = np.flatnonzero(visible[i])  # entities, [k]
        picture = raw.image if crop is None else raw.image[crop]
        image = resize_image(picture, protocol.size, protocol.image_filter)
        yield Prepared(
            # copied, so that the pictures that came with it can go, while this one waits for its shard
            image=image.copy() if image is picture else image,
            segments=segments[i].copy(),
            boxes=boxes[i, own],
            background=background,
            factors={
                **{name: values[own] for name, values in raw.factors.items()},
                "pixels": pixels[i, own].astype(np.int32),
                "source_entity": own.astype(np.int16),
            },
            scene_factors={
                **{name: np.asarray(value) for name, value in raw.scene_factors.items()},
                "source_index": np.asarray(raw.index, np.int64),
                "source_count": np.asarray(raw.present[background:].sum(), np.int16),
                **({} if kept is None else {"segments_source": kept[i].copy()}),
            },
        )


def _translate(number: np.ndarray, labels: np.ndarray, found: np.ndarray | None = None) -> np.ndarray:
    """Replace every label of label maps ``[B, H, W]`` by what ``number``, ``[B, N]``, has in its place.

    Where no label changes that was ``found``, bool ``[B, N]``, there is nothing to do.
    """
    changes = number != np.arange(number.shape[1], dtype=np.uint8)
    out = labels.copy()
    for i in np.flatnonzero((changes if found is None else changes & found).any(1)):
        out[i] = number[i].take(labels[i])
    return out


def _measure(labels: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for labels ``0 .. n - 1`` the numbers of pixels, ``[B, n]``, and the tight boxes, float32 ``[B, n, 4]``.

    Of label maps ``[B, H, W]``. In every pixel, a bit a label: OR over rows and columns tells where a label is.
    """
    b = len(labels)
    pixels = np.empty((b, n), np.int64)
    for label in range(n):
        pixels[:, label] = np.add.reduce(count_rows(labels == label), 1, dtype=np.int64)
    boxes = np.empty((b, n, 4), np.float32)
    for first in range(0, n, _BITS):
        some = np.arange(min(_BITS, n - first), dtype=np.uint16)
        bits = np.left_shift(np.uint16(1), labels - np.uint8(first), dtype=np.uint16)  # 0 for other labels
        for k, axis in ((0, 1), (1, 2)):
            has = np.bitwise_or.reduce(bits, axis)[:, None] >> some[:, None] & 1  # [B, labels, length]
            boxes[:, first + some, k] = has.argmax(2)
            boxes[:, first + some, k + 2] = has.shape[2] - has[..., ::-1].argmax(2)
    return pixels, boxes


def collect(parts: Sequence[Prepared], slots: int) -> Scenes:
    """Join scenes; objects are padded to ``slots``.

    Raises:
        DataError: If a scene has more objects, or a factor a number that int64 cannot hold.
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
        # Signed, so that -1 can say "absent", and wide enough for all that was there.
        kind = np.promote_types(example.dtype, np.int16) if example.dtype.kind in "ub" else example.dtype
        if kind.kind == "f" != example.dtype.kind:  # no type holds all of uint64 and -1
            kind = np.dtype(np.int64)
            if max(int(part.factors[name].max(initial=0)) for part in parts) > np.iinfo(np.int64).max:
                raise DataError(f"factor {name}: expected whole numbers below 2^63, got a larger one.")
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
