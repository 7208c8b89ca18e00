"""One example scored by every metric under every convention, and why they differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metrics.segmentation.conventions import (
    ARI,
    BEST_OVERLAP,
    CONVENTIONS,
    COVERING,
    DEFAULT,
    MASK_IOU,
    Convention,
)
from metrics.segmentation.labels import label_maps
from metrics.segmentation.scores import (
    adjusted_rand_index,
    matched_mask_iou,
    mean_best_overlap,
    mean_segmentation_covering,
    segmentation_covering,
)
from multiobj_data.arrays import Array, to_numpy
from multiobj_data.errors import UsageError, did_you_mean


@dataclass(frozen=True, eq=False)
class Case:
    """A degenerate example: label maps ``[1, H, W]``."""

    true: np.ndarray
    predicted: np.ndarray
    description: str


@dataclass(frozen=True)
class Line:
    """One metric of one example.

    Attributes:
        metric: Its id in the table of metrics.
        values: Convention -> score; NaN: skipped. Conventions that do not define the metric are not in it.
        reasons: Why those that differ from ours do, a sentence each.
    """

    metric: str
    values: Mapping[str, float]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """What `explain` found out.

    Attributes:
        situation: What kind of example it is, in one sentence.
        lines: One a metric.
    """

    situation: str
    lines: tuple[Line, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the same as strict JSON values: NaN, which means "skipped", becomes ``None``."""
        return {
            "situation": self.situation,
            "metrics": {
                line.metric: {
                    "values": {
                        name: None if math.isnan(value) else value for name, value in line.values.items()
                    },
                    "reasons": list(line.reasons),
                }
                for line in self.lines
            },
        }


_FUNCTIONS: dict[str, tuple[str, Callable[..., Array], bool]] = {
    "ari": (ARI, adjusted_rand_index, False),
    "ari_fg": (ARI, adjusted_rand_index, True),
    "sc": (COVERING, segmentation_covering, False),
    "sc_fg": (COVERING, segmentation_covering, True),
    "msc_fg": (COVERING, mean_segmentation_covering, True),
    "mbo": (BEST_OVERLAP, mean_best_overlap, True),
    "mask_miou": (MASK_IOU, matched_mask_iou, True),
}


def explain(
    true: Array,
    predicted: Array,
    *,
    background: Sequence[int] = (0,),
    predicted_background: Sequence[int] | None = None,
) -> Explanation:
    """Score one example by every metric under every convention that defines it.

    Args:
        true: One label map ``[1, H, W]``.
        predicted: The same shape.
        background: True labels that are background.
        predicted_background: Slots that are no objects, for the mask mIoU; see `metrics.matched_mask_iou`.

    Raises:
        ValueError: If these are not two label maps of one size, one image each.
    """
    label_maps(true, name="true")
    if len(true) != 1:
        raise ValueError(f"true: expected one image, [1, H, W], got {len(true)}.")
    pair = to_numpy(true), to_numpy(predicted)
    lines = []
    for metric, (family, function, only) in _FUNCTIONS.items():
        options: dict[str, Any] = {"background": background, "foreground_only": only}
        if family == MASK_IOU:
            options["predicted_background"] = predicted_background
        values = {
            name: float(function(*pair, **options, convention=name)[0])
            for name, convention in CONVENTIONS.items()
            if family in convention.defines
        }
        lines.append(Line(metric, values, tuple(_reasons(values, family, only, pair, background))))
    return Explanation(_situation(*pair, background), tuple(lines))


def _foreground(true: np.ndarray, background: Sequence[int]) -> np.ndarray:
    return ~np.isin(true, list(background)) & (true >= 0)


def _situation(true: np.ndarray, predicted: np.ndarray, background: Sequence[int]) -> str:
    pixels = _foreground(true, background)
    n, objects, slots = (
        int(pixels.sum()),
        len(np.unique(true[pixels])),
        len(np.unique(predicted[predicted >= 0])),
    )
    truth = f"{_number(objects, 'object')} of {_number(n, 'pixel')} in all"
    return f"{truth}; the prediction uses {_number(slots, 'slot')}."


def _number(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _reasons(
    values: Mapping[str, float],
    family: str,
    only: bool,
    pair: tuple[np.ndarray, np.ndarray],
    background: Sequence[int],
) -> list[str]:
    """Return a sentence for ours, if any other differs, and for each value that does."""
    ours = values[DEFAULT]
    others: dict[float | None, list[str]] = {}
    for name, value in values.items():
        if not _same(value, ours):
            others.setdefault(None if math.isnan(value) else value, []).append(name)
    if not others:
        return []
    sentences = [
        f"{DEFAULT}: {spoken(ours)}, because {_why(CONVENTIONS[DEFAULT], family, only, pair, background)}."
    ]
    for names in others.values():
        by_reason: dict[str, list[str]] = {}
        for name in names:
            by_reason.setdefault(_why(CONVENTIONS[name], family, only, pair, background), []).append(name)
        sentences += [
            f"{', '.join(same)}: {spoken(values[same[0]])}, because {reason}."
            for reason, same in by_reason.items()
        ]
    return sentences


def _same(one: float, other: float) -> bool:
    return (math.isnan(one) and math.isnan(other)) or math.isclose(one, other, abs_tol=1e-12)


def spoken(value: float) -> str:
    """Return a score as people read it: three digits, and ``NaN`` for "skipped"."""
    return "NaN" if math.isnan(value) else f"{value:.3f}".rstrip("0").rstrip(".")


def _why(
    convention: Convention,
    family: str,
    only: bool,
    pair: tuple[np.ndarray, np.ndarray],
    background: Sequence[int],
) -> str:
    reasons = {ARI: _why_ari, COVERING: _why_covering, MASK_IOU: _why_matched}
    return (
        reasons[family](convention, only, pair, background)
        if family in reasons
        else "no object is there to be found"
    )


def _why_ari(
    convention: Convention, only: bool, pair: tuple[np.ndarray, np.ndarray], background: Sequence[int]
) -> str:
    true, predicted = pair
    as_class = convention.negative_labels == "class" and not only
    scored = _foreground(true, background) if only else (true >= 0) | as_class
    where = "foreground" if only else "image"
    n, t, p = int(scored.sum()), np.unique(true[scored]), np.unique(predicted[scored])
    if as_class and (true < 0).any():
        return "it takes a negative label for a class"
    if convention.merges_background and not only and len(np.intersect1d(t, list(background))) > 1:
        return "its loaders merge all background labels into one segment"
    options: dict[str, Any] = {
        "background": background,
        "foreground_only": only,
        "convention": convention.name,
    }
    value = float(adjusted_rand_index(true, predicted, **options)[0])
    if n >= 2 and not (len(t) == len(p) == 1 or len(t) == len(p) == n):
        return (
            "negative labels are not scored"
            if (true < 0).any()
            else "each background label is a segment of its own"
        )
    if convention.ari_looks_outside and value == 1:
        return "its test for a single cluster looks at dropped pixels too, and finds one label on each side"
    if convention.ari_looks_outside:
        return "the formula is 0/0, and its test for a single cluster, which looks at dropped pixels too, finds several"
    if n == 0:
        return {
            "nan": f"no pixel of the {where} is scored, so that nothing can be said",
            "1": f"two empty sets of pixels are taken to be equal (no pixel of the {where} is scored)",
            "0": f"0/0 is set to 0 (no pixel of the {where} is scored)",
        }[_key(value)]
    if n == 1:
        return {
            "nan": "one pixel makes no pair, so that every prediction would score the same",
            "1": "one pixel is the same partition in both",
        }[_key(value)]
    if len(t) == 1:
        return (
            "truth and prediction are one segment each, hence equal; another prediction would have scored 0"
        )
    return {
        "1": "single pixels everywhere are the same partition in both",
        "0": "0/0 is set to 0, and only a single cluster is excepted (every segment is a single pixel)",
    }[_key(value)]


def _key(value: float) -> str:
    return "nan" if math.isnan(value) else f"{value:g}"


def _why_covering(
    convention: Convention, only: bool, pair: tuple[np.ndarray, np.ndarray], background: Sequence[int]
) -> str:
    true = pair[0]
    if not (_foreground(true, background) if only else true >= 0).any():
        if math.isnan(convention.covering_of_nothing):
            return "there is no segment to cover, so that nothing can be said"
        return "a mean over no segment is set to 0"
    if convention.merges_background:
        return "its loaders merge all background labels into one segment"
    return "each background label is a segment of its own"


def _why_matched(
    convention: Convention, only: bool, pair: tuple[np.ndarray, np.ndarray], background: Sequence[int]
) -> str:
    there = _foreground(pair[0], background).any()
    if convention.denominator == "true":
        return "it divides by true objects alone: surplus slots are free" + (
            "" if there else ", and 0/0 is skipped"
        )
    rule = "it divides by the larger number, of true objects or of slots that are not the background's"
    return rule + ": surplus slots cost" if there else rule + ": the slots are surplus objects"


# -- examples


def _case(description: str, true: str, predicted: str) -> Case:
    maps = [
        np.array([[int(label) for label in row] for row in text.split("/")])[None]
        for text in (true, predicted)
    ]
    return Case(maps[0], maps[1], description)


_EMPTY = "/".join(["000000"] * 4)
_ONE = "000000/011000/011000/000000"
_TWO = "000000/011022/011022/000000"
CASES: dict[str, Case] = {
    "empty-one-slot": _case("no object, prediction in one slot", _EMPTY, _EMPTY),
    "empty-split": _case("no object, prediction in several slots", _EMPTY, "/".join(["001122"] * 4)),
    "one-exact": _case("one object, found exactly, background in another slot", _ONE, _ONE.replace("1", "3")),
    "one-swallowed": _case("one object, whole image in one slot", _ONE, _EMPTY),
    "one-split": _case("one object, split by the prediction", _ONE, "000000/012000/012000/000000"),
    "two-merged": _case("two objects, whole image in one slot", _TWO, _EMPTY),
    "one-pixel": _case("one foreground pixel, found exactly", "0000/0100/0000", "0000/0100/0000"),
    "two-pixels": _case("two objects of one pixel each, found exactly", "0000/0102/0000", "0000/0102/0000"),
    "half-planes": _case(
        "two objects, each in a slot with half of the background", _TWO, "/".join(["000111"] * 4)
    ),
    "surplus-slots": _case(
        "two objects, found exactly, background in two slots", _TWO, _TWO.replace("0", "3", 12)
    ),
    "ordinary": _case(
        "three objects, nearly right", "001122/001122/330022/330000", "001122/001112/330022/330000"
    ),
}
"""Name -> built-in example: the rows of the table in metrics/CONVENTIONS.md, and more."""


def find_case(name: str) -> Case:
    """Return a built-in example.

    Raises:
        UsageError: If there is none of this name.
    """
    if name not in CASES:
        raise UsageError(f"no case {name!r}.{did_you_mean(name, CASES)}")
    return CASES[name]
