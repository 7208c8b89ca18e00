"""Whether slots come in a consistent order: the same kind of object at the same place, image after image.

SRI (Emami et al. 2022, sec. 5.1 and fig. 4) shows it in pictures; the figures here are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from metrics.evaluation.answers import answerer, as_numpy, ask, check_indices
from metrics.matching import match
from metrics.segmentation.contingency import contingency_table, ious_of
from multiobj_data.arrays import Array, to_numpy
from multiobj_data.errors import DataError, UsageError, did_you_mean
from multiobj_data.scenes import Prediction, Scenes, expect


@dataclass(frozen=True)
class SlotOrder:
    """How consistent an order is, see `order_consistency`.

    Attributes:
        place: Agreement of places, 1 at most; 0 for slots in uniformly random order. NaN if nothing can be said.
        before: Agreement of who comes first, likewise.
        by_kind: Kind -> its own ``place``; NaN for one that fewer than two images show.
        images: Images with something in a slot.
        slots: S.
    """

    place: float
    before: float
    by_kind: Mapping[Any, float]
    images: int
    slots: int

    def to_json(self) -> dict[str, Any]:
        """Return the figures as strict JSON values: NaN becomes ``None``."""
        from metrics.evaluation.result import strict

        return strict(dict(vars(self)))


def order_consistency(place: Array, kind: Array, image: Array, slots: int) -> SlotOrder:
    """Say how far objects of the same kind come at the same place of the order, over images.

    Two images are drawn at random, without replacement, among those that show what is asked about:

    - ``place``: of each, one object of kind a. How often are both in the same slot? From the rate of a uniformly
      random order, 1/S, to certainty, as 0 to 1 (below 0: they avoid it). Mean over kinds, weighted by their images.
    - ``before``: of each, one object of kind a and one of kind b. How often do both images agree which of the two
      comes first, minus how often they do not. Mean over pairs of kinds, weighted by the images that show both. It
      forgives shifts: where an image has one object less, later ones move up.

    Both are unbiased: their expectation does not depend on the number of images. Several objects of one kind in an
    image cannot be in one slot, so that ``place`` is below 1 then: it asks for kinds that come once an image.

    Args:
        place: Which slot each object is in, whole numbers ``[N]`` in ``0 .. slots - 1``.
        kind: Of what kind it is, whole numbers ``[N]``.
        image: In which image it is, whole numbers ``[N]``.
        slots: S, 1 or more; with one slot there is no order, and all is NaN.

    Raises:
        ValueError: If shapes, types or places do not fit.
    """
    place, kind, image = (
        _whole(name, array) for name, array in (("place", place), ("kind", kind), ("image", image))
    )
    if not len(place) == len(kind) == len(image):
        raise ValueError(
            f"order_consistency: expected a place, a kind and an image for each object, got {len(place)}, "
            f"{len(kind)} and {len(image)}."
        )
    if slots < 1 or np.any((place < 0) | (place >= slots)):
        raise ValueError(
            f"place: expected slots 0 to {slots - 1}, got {place.min(initial=0)} to {place.max(initial=0)}."
        )
    kinds, a = np.unique(kind, return_inverse=True)
    images, i = np.unique(image, return_inverse=True)
    number = np.zeros((len(images), len(kinds), slots))
    np.add.at(number, (i, a, place), 1)
    there = number.sum(-1) > 0  # [I, A]
    share = number / np.maximum(number.sum(-1, keepdims=True), 1)  # [I, A, S]; 0 where there is none
    same = _agreement(share, there)  # [A]
    chance = 1 / slots
    places = (same - chance) / (1 - chance) if slots > 1 else np.full(len(kinds), math.nan)
    return SlotOrder(
        place=_mean(places, there.sum(0)),
        before=_before(share, there) if slots > 1 else math.nan,
        by_kind=dict(zip(kinds.tolist(), places.tolist(), strict=True)),
        images=len(images),
        slots=slots,
    )


def _whole(name: str, array: Array) -> np.ndarray:
    expect(name, array, (None,), "iu")
    return to_numpy(array).astype(np.int64)


def _before(share: np.ndarray, there: np.ndarray) -> float:
    """Return how far images agree about who comes first, over pairs of kinds; of ``[I, A, S]`` and ``[I, A]``."""
    up_to = np.cumsum(share, axis=-1)
    later = up_to[..., -1:] - up_to  # of b: the share in slots behind this one, [I, A, S]
    earlier = up_to - share
    sign = np.einsum("ias,ibs->iab", share, later - earlier)  # 1: a is always before b
    first, second = np.triu_indices(share.shape[1], k=1)
    both = there[:, first] & there[:, second]  # [I, pairs]
    return _mean(_agreement(sign[:, first, second][..., None], both), both.sum(0))


def _agreement(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Return the mean product of two different images' ``values [I, A, S]``: float64 ``[A]``, NaN below two images."""
    n = there.sum(0)  # [A]
    some = np.where(there[..., None], values, 0)
    pairs = np.square(some.sum(0)).sum(-1) - np.square(some).sum((0, 2))
    return np.divide(pairs, n * (n - 1), out=np.full(len(n), math.nan), where=n > 1)


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    known = np.isfinite(values)
    return float(np.average(values[known], weights=weights[known])) if known.any() else math.nan


def slot_order(
    predict: Any,
    batches: Iterable[tuple[np.ndarray, Scenes]],
    *,
    kind: str | None = None,
    min_pixels: int = 10,
    who: str = "the model",
    on_progress: Callable[[int], None] | None = None,
) -> SlotOrder:
    """Say how consistent the order of a model's slots is, background labels among the kinds.

    True objects and background labels are matched to slots one to one (Hungarian) on the IoU of their visible pixels
    with the argmax masks; what then meets no slot is left out, and so is what has too few pixels. The order is that of
    ``Prediction.masks``.

    Args:
        predict: As `metrics.evaluate` takes it; its answers have ``masks``.
        batches: Pairs of scene indices and `Scenes`, each scene once.
        kind: Factor of whole numbers that says of which kind an object is, e.g. ``"class"`` or ``"level"``; without
            it, all objects are one kind.
        min_pixels: Objects and labels of fewer visible pixels are left out.
        who: How messages call the model.
        on_progress: Called after each batch with the number of its scenes.

    Returns:
        As `order_consistency`; ``by_kind`` by name, such as ``"background 0"`` and ``"level 2"``.

    Raises:
        UsageError: If the scenes have no such factor, or it is no whole number.
        DataError: If an answer has no masks, or there is no scene.
    """
    answer, parts, slots = answerer(predict), [], 0
    for indices, scenes in batches:
        index = to_numpy(indices)
        check_indices(index, scenes)
        prediction = as_numpy(ask(who, answer, index, scenes))
        parts.append(_places(who, index, scenes, prediction, kind, min_pixels))
        slots = max(slots, prediction.masks.shape[1])
        if on_progress is not None:
            on_progress(len(scenes))
    if not parts:
        raise DataError(f"{who}: expected at least one scene to see an order in, got none.")
    columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    place, image, ground, value = columns  # [N] each; ground: label of background, -1 of an object
    pairs, number = np.unique(np.stack([ground, value], axis=-1), axis=0, return_inverse=True)
    found = order_consistency(place, number.reshape(-1), image, slots)
    names = [f"background {b}" if b >= 0 else f"{kind} {v}" if kind else "object" for b, v in pairs.tolist()]
    by_kind = {names[code]: value for code, value in found.by_kind.items()}
    return SlotOrder(found.place, found.before, by_kind, found.images, slots)


def _places(
    who: str, index: np.ndarray, scenes: Scenes, prediction: Prediction, kind: str | None, min_pixels: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return place, image, label of background (-1: none) and value of the factor of everything in a slot: ``[N]``."""
    if prediction.masks is None:
        raise DataError(f"{who}: expected masks to see which slot holds what; its answers have none.")
    first, objects = scenes.background_segments, scenes.boxes.shape[1]
    values = _values(scenes, kind)  # [B, K]
    labels, slots = first + objects, prediction.masks.shape[1]
    winner = prediction.masks.argmax(1)  # [B, H, W]; ties go to the lowest slot
    shared = contingency_table(scenes.segments, winner, num_labels=(labels, slots))  # [B, L, S]
    visible = shared.sum(2) >= min_pixels
    matching = match(np.where(visible[:, :, None], ious_of(shared), 0))
    image, label = np.nonzero(visible & (matching.score > 0))  # [N], [N]
    ground = np.where(label < first, label, -1)
    value = np.where(label < first, 0, values[image, np.maximum(label - first, 0)] if objects else 0)
    return matching.slot[image, label], index[image].astype(np.int64), ground, value


def _values(scenes: Scenes, kind: str | None) -> np.ndarray:
    if kind is None:
        return np.zeros(scenes.boxes.shape[:2], np.int64)
    if kind not in scenes.factors:
        raise UsageError(f"no factor named {kind!r}.{did_you_mean(kind, scenes.factors)}")
    values = scenes.factors[kind]
    if values.ndim != 2 or values.dtype.kind not in "iu":
        raise UsageError(f"{kind}: expected a factor of whole numbers, such as class, to name kinds by.")
    return values.astype(np.int64)
