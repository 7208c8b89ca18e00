"""Segmentation: how well predicted segments agree with true ones, an image (or a video) at a time.

All of it follows from one table an image: pixels by true and predicted label (`contingency`). What projects answer
where there is no obvious answer is in `conventions`; NaN says that nothing can be said, i.e. skipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from metrics.libraries import library_of, ratio, whole_numbers
from metrics.matching import match
from metrics.segmentation.contingency import NEGATIVE, Overlaps, ious_of, overlaps
from metrics.segmentation.conventions import ARI, BEST_OVERLAP, COVERING, MASK_IOU, Convention, convention_for
from metrics.segmentation.pairing import NO_LABEL
from multiobj_data.arrays import Array, is_tensor, like, to_numpy

DENOMINATORS = ("larger", "true", "either", "highest_label")
"""What a matched mask IoU is divided by; see `matched_mask_iou`."""


def adjusted_rand_index(
    true: Any,
    predicted: Any,
    *,
    background: Sequence[int] = (0,),
    foreground_only: bool = False,
    ignore: Any = None,
    convention: str | None = None,
) -> Array:
    """Return the adjusted Rand index (ARI) of Hubert & Arabie (1985), with ``foreground_only`` the ARI-FG.

    Of all pairs of pixels: in how many do truth and prediction agree on "same segment or not", adjusted so that
    chance scores 0; 1 is equality up to names. ARI-FG looks only at pixels whose *true* label is no background: a
    prediction that leaks into the background costs nothing there.

    Args:
        true: Label maps ``[B, H, W]`` of whole numbers; ``[B, T, H, W]`` scores videos whole. Or a list of B maps of
            any sizes. Negative labels are not scored. Masks: see `metrics.labels_of_one_hot` and
            `metrics.labels_of_soft_masks`.
        predicted: The same form and sizes; every scored pixel is in a slot (0 or more).
        background: True labels that are background, e.g. ``range(4)`` for Objects Room.
        foreground_only: Score true objects' pixels only.
        ignore: bool, the same form and sizes; ``True`` where a pixel is not scored.
        convention: By whose rules (`metrics.CONVENTIONS`); ours by default: NaN with fewer than two
            scored pixels, 1 where both are one segment.

    Returns:
        float64 ``[B]``, in the library and on the device of ``predicted``.

    Raises:
        ValueError: If these are no label maps of equal sizes.
        UsageError: If there is no such convention.
    """
    rules = convention_for(convention, ARI)

    def score(found: Overlaps, labels: tuple[int, ...]) -> Array:
        return _ari(found, labels, foreground_only, rules)

    return _each(true, predicted, ignore, background, score, rules.negative_labels)


def segmentation_covering(
    true: Any,
    predicted: Any,
    *,
    background: Sequence[int] = (0,),
    foreground_only: bool = False,
    ignore: Any = None,
    convention: str | None = None,
) -> Array:
    """Return the segmentation covering (SC): each true segment's best IoU with a slot, weighted by its size.

    Source: Arbelaez et al., TPAMI 2011; Engelcke et al., "GENESIS", ICLR 2020, sec. 4.2. With ``foreground_only``,
    background segments are not to be covered, but slots keep all of their pixels: what leaks into the background
    costs, unlike in ARI-FG.

    Arguments, result and errors are those of `adjusted_rand_index`, except that a negative predicted label says that
    no slot claims the pixel. An image without a true segment to cover is NaN; by the convention ``"genesis"`` it is 0.
    """
    rules = convention_for(convention, COVERING)

    def score(found: Overlaps, labels: tuple[int, ...]) -> Array:
        segments = _segments(found, labels, foreground_only, rules.merges_background)
        return ratio(
            (segments.pixels * segments.best).sum(1), segments.pixels.sum(1), rules.covering_of_nothing
        )

    return _each(true, predicted, ignore, background, score)


def mean_segmentation_covering(
    true: Any,
    predicted: Any,
    *,
    background: Sequence[int] = (0,),
    foreground_only: bool = False,
    ignore: Any = None,
    convention: str | None = None,
) -> Array:
    """Return the mean segmentation covering (mSC): as `segmentation_covering`, all segments weighing the same.

    What GENESIS and its successors print as "MSC" is this with ``foreground_only``.
    """
    rules = convention_for(convention, COVERING)

    def score(found: Overlaps, labels: tuple[int, ...]) -> Array:
        segments = _segments(found, labels, foreground_only, rules.merges_background)
        return _mean_best(segments, rules.covering_of_nothing)

    return _each(true, predicted, ignore, background, score)


def mean_best_overlap(
    true: Any,
    predicted: Any,
    *,
    background: Sequence[int] = (0,),
    foreground_only: bool = True,
    ignore: Any = None,
    convention: str | None = None,
) -> Array:
    """Return the mean best overlap (mBO): the mean over true objects of their best IoU with any slot.

    Source: Pont-Tuset et al., TPAMI 2017; Seitzer et al., "DINOSAUR", ICLR 2023. With labels of instances it is
    mBO^i, with labels of classes mBO^c. It is `mean_segmentation_covering` of objects; the two differ between projects
    only in images without objects, which are NaN here.

    Arguments, result and errors are those of `segmentation_covering`.
    """
    convention_for(convention, BEST_OVERLAP)

    def score(found: Overlaps, labels: tuple[int, ...]) -> Array:
        return _mean_best(_segments(found, labels, foreground_only), math.nan)

    return _each(true, predicted, ignore, background, score)


def matched_mask_iou(
    true: Any,
    predicted: Any,
    *,
    background: Sequence[int] = (0,),
    foreground_only: bool = True,
    predicted_background: Sequence[int] | None = None,
    denominator: str | None = None,
    ignore: Any = None,
    convention: str | None = None,
) -> Array:
    """Return the mask mIoU: summed IoU of the best one-to-one matching of true objects and slots, over their number.

    Which number is where projects differ (``denominator``):

    - ``"larger"`` (our default; AIR-ASR's rule for boxes): the larger number of true objects and predicted ones.
      Missing and surplus slots both cost. Where only one side has any, the score is 0.
    - ``"true"`` (object-centric learning framework): true objects; surplus slots are free.
    - ``"either"`` (CLEVRTEX): pairs of which either side has pixels. A matched pair without overlap counts as two,
      where CLEVRTEX leaves it to the solver.
    - ``"highest_label"`` (SlotFormer): labels up to the image's largest one, present or not, background ones apart.

    Args:
        true: As in `adjusted_rand_index`.
        predicted: The same form and sizes; negative: no slot claims the pixel.
        background: True labels that are background.
        foreground_only: Background segments are no objects; otherwise they are matched and scored as all others.
        predicted_background: Slots that are no objects, as the model says; ``()``: every slot that wins a pixel is one.
            ``None``: true background segments take part in the matching, and the slots that they get are no objects
            (ours); by the convention ``"ocl"`` it is as ``()``.
        denominator: See above; ``None``: by the convention.
        ignore: As in `adjusted_rand_index`.
        convention: ``"mobj"`` (default) or ``"ocl"``.

    Returns:
        float64 ``[B]``; NaN where the denominator is 0.

    Raises:
        ValueError: If these are no label maps of equal sizes, or the denominator is unknown.
        UsageError: If the convention has no such metric.
    """
    rules = convention_for(convention, MASK_IOU)
    over = rules.denominator if denominator is None else denominator
    if over not in DENOMINATORS:
        raise ValueError(f"denominator: expected one of {', '.join(DENOMINATORS)}, got {over!r}.")
    slots = (
        None if predicted_background is None else whole_numbers("predicted_background", predicted_background)
    )
    if slots is None and not (foreground_only and rules.matches_background):
        slots = ()

    def score(found: Overlaps, labels: tuple[int, ...]) -> Array:
        return _matched(found, labels if foreground_only else (), slots, over)

    return _each(true, predicted, ignore, background, score)


# -- images to tables, tables to scores


def _each(
    true: Any,
    predicted: Any,
    ignore: Any,
    background: Sequence[int],
    score: Callable[[Overlaps, tuple[int, ...]], Array],
    negative: str = "unscored",
) -> Array:
    """Score all images, a bounded number at a time."""
    labels = whole_numbers("background", background)
    reference = predicted[0] if isinstance(predicted, list | tuple) and len(predicted) else predicted
    parts: list[tuple[Any, Array]] = []
    for found in overlaps(true, predicted, ignore, negative=negative):
        parts.append((found.rows, score(found, labels)))
    if len(parts) == 1 and isinstance(parts[0][0], slice):
        return like(parts[0][1], reference)
    first = parts[0][1]
    shape = sum(len(values) for _, values in parts)
    scores = first.new_empty(shape) if is_tensor(first) else np.empty(shape)
    for rows, values in parts:
        scores[rows] = values
    return like(scores, reference)


def _among(names: Array, labels: Sequence[int]) -> Array:
    """Return which names are among ``labels``: bool of the same shape."""
    found = names == NO_LABEL
    found = found & ~found
    for label in labels:
        found = found | (names == label)
    return found


def _ari(found: Overlaps, background: tuple[int, ...], foreground_only: bool, rules: Convention) -> Array:
    out = found.true_labels == NO_LABEL  # [1 or b, G]
    dropped = out
    if foreground_only:
        dropped = out | (found.true_labels < 0) | _among(found.true_labels, background)
    table = found.table * ~dropped[..., None]  # [b, G, K]
    lost = found.predicted_labels == NO_LABEL  # [1 or b, K]
    if bool(lost.any()) and bool((table * lost[:, None]).any()):
        raise ValueError(NEGATIVE)
    if rules.merges_background and not foreground_only:
        table = _merge(table, _among(found.true_labels, background) & ~out)
    value = _ari_of(table, rules)
    if not rules.ari_looks_outside:
        return value
    return found.library.where(
        _looks_single(found, dropped, background if foreground_only else ()), 1.0, value
    )


def _looks_single(found: Overlaps, dropped: Array, background: tuple[int, ...]) -> Array:
    """Return whether an `argmax` over masks is the same in all pixels, of truth and of prediction: bool ``[b]``.

    Where none of the kept true labels is, `argmax` is the first of them.
    """
    first = min(set(range(len(background) + 1)) - set(background))
    as_first = dropped | (found.true_labels == first)  # [1 or b, G]
    there = found.table.sum(2) > 0  # [b, G]
    true_values = (there & ~as_first).sum(1) + (there & as_first).any(1)
    return (true_values == 1) & ((found.table.sum(1) > 0).sum(1) == 1)


def _ari_of(table: Array, rules: Convention) -> Array:
    """Return the ARI of tables ``[b, G, K]`` from whole numbers of pixel pairs; no difference of large ones divides."""
    true, predicted = table.sum(2), table.sum(1)  # [b, G], [b, K]
    n = true.sum(1)
    both = (table * (table - 1)).sum((1, 2))  # ordered pairs of pixels, together in both
    in_true, in_predicted = (true * (true - 1)).sum(1), (predicted * (predicted - 1)).sum(1)
    all_pairs = n * (n - 1)
    only_true, only_predicted = in_true - both, in_predicted - both
    neither = all_pairs - in_true - in_predicted + both
    chance = in_true * (all_pairs - in_predicted) + in_predicted * (all_pairs - in_true)
    # It is 0 in four cases alone: no pixel, one pixel, one segment in both, single pixels in both.
    where = library_of(table).where
    several = where(in_true > 0, rules.ari_of_one_segment, rules.ari_of_single_pixels)
    few = where(n > 0, rules.ari_of_one_pixel, rules.ari_of_nothing)
    agreement = ratio(2 * (both * neither - only_true * only_predicted), chance, 0.0)
    return where(chance > 0, agreement, where(n > 1, several, few))


def _merge(table: Array, chosen: Array) -> Array:
    """Return tables in which the chosen rows, bool ``[1 or b, G]``, are one row more."""
    rest = table * ~chosen[..., None]
    merged = (table * chosen[..., None]).sum(1)[:, None]  # [b, 1, K]
    return library_of(table).concatenate([rest, merged], 1)


class _Segments(NamedTuple):
    """True segments that are to be found, and how well slots cover them."""

    pixels: Array
    """float64 ``[b, G]``, 0 for what is not to be found."""
    best: Array
    """float64 ``[b, G]``, the best IoU with a slot."""


def _segments(
    found: Overlaps, background: tuple[int, ...], foreground_only: bool, merge: bool = False
) -> _Segments:
    scored = found.true_labels != NO_LABEL
    behind = _among(found.true_labels, background) & scored
    table = found.table * scored[..., None]
    if foreground_only:
        wanted = scored & ~behind
    elif merge:
        table = _merge(table, behind)
        wanted = scored[:, :1] | True
    else:
        wanted = scored
    slots = found.predicted_labels != NO_LABEL
    pixels = table.sum(2)
    return _Segments(pixels * wanted, found.library.amax(ious_of(table) * slots[:, None], 2))


def _mean_best(segments: _Segments, nothing: float) -> Array:
    there = segments.pixels > 0
    return ratio((segments.best * there).sum(1), there.sum(1), nothing)


def _matched(
    found: Overlaps, background: tuple[int, ...], slots: tuple[int, ...] | None, denominator: str
) -> Array:
    """Match on the host: tables are small, and the solver of assignments lives there."""
    table, names, answers = (
        to_numpy(part) for part in (found.table, found.true_labels, found.predicted_labels)
    )
    scored = names != NO_LABEL
    table = table * scored[..., None]
    behind = _among(names, background)
    objects = scored & ~behind & (table.sum(2) > 0)  # [b, G]
    is_slot = (answers != NO_LABEL) & ~_among(answers, slots or ()) & (table.sum(1) > 0)  # [b, K]
    known = slots is not None
    iou = ious_of(table) * is_slot[:, None] * (objects if known else scored)[..., None]  # [b, G, K]
    overlap = _matched_iou(iou, objects)  # [b, G]
    score = overlap * objects
    n_true = objects.sum(1)
    n_slots = is_slot.sum(1) - (0 if known else ((overlap > 0) & ~objects).sum(1))
    pairs = (score > 0).sum(1)
    if denominator == "highest_label":
        highest = np.where(objects, names, -1).max(1)  # [b]
        over = highest + 1 - sum((highest >= label).astype(int) for label in set(background) if label >= 0)
    else:
        choices = {"larger": np.maximum(n_true, n_slots), "true": n_true, "either": n_true + n_slots - pairs}
        over = choices[denominator]
    return like(ratio(score.sum(1), over, math.nan), found.table)


def _matched_iou(iou: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Return each segment's IoU in the best matching, ``[b, G]``, whatever the solver would do with ties.

    Of equally good matchings, that which gives objects more and the background less; then that with more pairs.
    """
    weights = np.where(objects[..., None], iou + _MORE_PAIRS * (iou > 0), iou * (1 - _OBJECTS_FIRST))
    slot = match(weights).slot  # [b, G]
    return np.take_along_axis(iou, np.maximum(slot, 0)[..., None], 2)[..., 0] * (slot >= 0)


_OBJECTS_FIRST, _MORE_PAIRS = 1e-9, 1e-11  # far below what two IoUs differ by, far above what float64 rounds
