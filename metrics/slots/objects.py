"""Which slot is which object: the codes of slots, joined to the true objects that they stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metrics.boxes.scores import box_iou
from metrics.evaluation.answers import answerer, as_numpy, ask, check_indices
from metrics.matching import match
from metrics.segmentation.contingency import contingency_table, ious_of
from metrics.table import PRESENT
from multiobj_data.arrays import to_numpy
from multiobj_data.errors import DataError, UsageError, did_you_mean
from multiobj_data.scenes import Prediction, Scenes


@dataclass(frozen=True, eq=False)
class SlotObjects:
    """True objects of many images, each with the slot that a matching gave it.

    Attributes:
        codes: float32 ``[N, D]``; NaN for an object without a slot.
        iou: float64 ``[N]`` of object and slot; 0 without a slot.
        image: int64 ``[N]``, the image's index.
        factors: Name -> ``[N, ...]``.
        images: How many images were seen, those without objects too.
        too_small: How many more objects there were, of too few visible pixels.
        matched_by: ``"masks"`` or ``"boxes"``.
    """

    codes: np.ndarray
    iou: np.ndarray
    image: np.ndarray
    factors: dict[str, np.ndarray]
    images: int
    too_small: int
    matched_by: str


def collect_slots(
    predict: Any,
    batches: Iterable[tuple[np.ndarray, Scenes]],
    *,
    factors: Sequence[str] = (),
    min_pixels: int = 10,
    most_objects: int = 20_000,
    who: str = "the model",
    on_progress: Callable[[int], None] | None = None,
) -> SlotObjects:
    """Answer batch by batch and keep only codes: memory grows by one code an object, up to ``most_objects``.

    Slots are matched to objects one to one (Hungarian) on the IoU of the argmax masks with the visible segments or, if
    the model gives no masks, of boxes. Background slots and, with boxes, slots of presence below 0.5 are no candidates.

    Args:
        predict: As `metrics.evaluate` takes it; its answers have ``slots``, and ``masks`` or ``boxes`` and
            ``presence``.
        batches: Pairs of scene indices and `Scenes`; a scene that comes twice counts once.
        factors: Names that the scenes must have; the first batch tells.
        min_pixels: Objects of fewer visible pixels are left out: they cannot be seen.
        most_objects: Stop after the batch with which there are as many.
        who: How messages call the model.
        on_progress: Called after each batch with the number of its scenes.

    Raises:
        UsageError: If a factor's name is unknown.
        DataError: If answers lack what is needed, do not fit, or no object is large enough.
    """
    answer, parts, seen = answerer(predict), [], np.zeros(0, np.int64)
    objects = too_small = 0
    for indices, scenes in batches:
        index = to_numpy(indices)
        check_indices(index, scenes)
        _check_factors(scenes, factors)
        _, first = np.unique(index, return_index=True)
        new = np.sort(first)[~np.isin(index[np.sort(first)], seen)]
        if len(new):
            index, fresh = index[new], scenes[new]
            seen = np.concatenate([seen, index])
            prediction = as_numpy(ask(who, answer, index, fresh))
            part, small = _batch(who, index, fresh, prediction, min_pixels)
            parts.append(part)
            objects, too_small = objects + len(part["image"]), too_small + small
        if on_progress is not None:
            on_progress(len(scenes))
        if objects >= most_objects:
            break
    if not objects:
        raise DataError(
            f"{who}: expected objects to probe, got none of {min_pixels} visible pixels or more in {len(seen)} images."
        )
    joined = _join(who, parts)
    return SlotObjects(
        codes=joined.pop("codes"),
        iou=joined.pop("iou"),
        image=joined.pop("image"),
        factors={name.removeprefix("factors/"): values for name, values in joined.items()},
        images=len(seen),
        too_small=too_small,
        matched_by="masks" if prediction.masks is not None else "boxes",
    )


def _check_factors(scenes: Scenes, names: Sequence[str]) -> None:
    if not scenes.factors:
        raise DataError("the scenes have no factors to predict; use data that keeps them.")
    for name in names:
        if name not in scenes.factors:
            raise UsageError(f"no factor named {name!r}.{did_you_mean(name, scenes.factors)}")


def _batch(
    who: str, index: np.ndarray, scenes: Scenes, prediction: Prediction, min_pixels: int
) -> tuple[dict[str, np.ndarray], int]:
    """Return one row an object of the batch, by name, and how many objects were too small."""
    if prediction.slots is None or not prediction.slots.shape[1] * prediction.slots.shape[2]:
        raise DataError(
            f"{who}: expected the codes of its slots to probe, its answers have none; fill in Prediction.slots."
        )
    overlap, pixels = _overlaps(who, scenes, prediction)  # [B, K, S'], [B, K]
    visible = scenes.present & (pixels >= min_pixels)  # [B, K]
    matching = match(np.where(visible[:, :, None], overlap, 0))
    image, place = np.nonzero(visible)  # [N], [N]
    iou, slot = matching.score[image, place], matching.slot[image, place]
    codes = prediction.slots[image, slot].astype(np.float32)
    codes[iou <= 0] = np.nan  # the matching's left-overs: they do not meet
    columns = {"codes": codes, "iou": iou, "image": index[image].astype(np.int64)}
    columns |= {f"factors/{name}": values[image, place] for name, values in scenes.factors.items()}
    return columns, int((scenes.present & ~visible).sum())


def _overlaps(who: str, scenes: Scenes, prediction: Prediction) -> tuple[np.ndarray, np.ndarray]:
    """Return the IoU of every object with every slot, 0 for slots that hold none, and objects' visible pixels."""
    first = scenes.background_segments
    labels = first + scenes.boxes.shape[1]
    if prediction.masks is not None:
        slots = prediction.masks.shape[1]
        winner = prediction.masks.argmax(1)  # [B, H, W]; ties go to the lowest slot
        table = contingency_table(scenes.segments, winner, num_labels=(labels, slots))  # [B, L, S']
        iou = ious_of(table)[:, first:]  # [B, K, S']
        iou[:, :, list(prediction.background_slots)] = 0
        return iou, table.sum(2)[:, first:]
    if prediction.boxes is None or prediction.presence is None:
        raise DataError(
            f"{who}: expected masks, or boxes and presence, to tell which slot is which object; its answers have "
            "neither."
        )
    own = contingency_table(scenes.segments, scenes.segments, num_labels=(labels, labels))
    pixels = np.diagonal(own, axis1=1, axis2=2)[:, first:]  # [B, K]
    present = prediction.presence >= PRESENT
    boxes = np.where(present[..., None], prediction.boxes, 0)
    return np.nan_to_num(box_iou(scenes.boxes, boxes)), pixels


def _join(who: str, parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    forms = {tuple((name, values.shape[1:]) for name, values in part.items()) for part in parts}
    if len(forms) > 1:
        raise DataError(f"{who}: expected every batch to have codes and factors of the same form.")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
