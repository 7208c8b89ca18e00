"""How projects score what has no obvious score: one frozen record a project, ours among them.

On ordinary images all of them agree. They differ where an image has no object, one object, or a handful of pixels,
and in what a negative label means; `metrics/CONVENTIONS.md` has the table, the reasons, and how to choose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from multiobj_data.errors import UsageError, did_you_mean

ARI, COVERING, BEST_OVERLAP, MASK_IOU = (
    "adjusted Rand index",
    "segmentation covering",
    "mean best overlap",
    "matched mask IoU",
)
DEFAULT = "mobj"


@dataclass(frozen=True)
class Convention:
    """What one project's code does where others do something else; NaN means no score, i.e. skipped.

    Attributes:
        name: What to pass as ``convention=``.
        source: Where this is defined.
        defines: Which families of metrics exist there.
        ari_of_nothing: ARI where no pixel is scored (no foreground).
        ari_of_one_pixel: ARI where one pixel is scored: there is no pair of pixels.
        ari_of_one_segment: ARI where truth and prediction both are one segment of two pixels or more.
        ari_of_single_pixels: ARI where every segment of both is a single pixel, of two or more.
        ari_looks_outside: Before all of that: 1 if an `argmax` over masks is the same in *all* pixels, dropped ones
            included, of truth and of prediction; it takes a dropped pixel for one of the first kept label.
        covering_of_nothing: SC and mSC where there is no true segment.
        negative_labels: A negative true label is ``"unscored"``; or, in the ARI of all pixels, a label as any
            other (``"class"``). It is foreground nowhere.
        merges_background: Background labels are one segment in scores of all pixels: the project's loaders merge them.
        foreground: Which true labels the project itself drops, in words; here ``background`` says it.
        denominator: Of the matched mask IoU: see `metrics.matched_mask_iou`.
        matches_background: Whether, by default, true background segments take part in the matching of the mask IoU,
            so that the slots that they get are no objects.
    """

    name: str
    source: str
    defines: tuple[str, ...]
    ari_of_nothing: float = 1.0
    ari_of_one_pixel: float = 1.0
    ari_of_one_segment: float = 1.0
    ari_of_single_pixels: float = 1.0
    ari_looks_outside: bool = False
    covering_of_nothing: float = math.nan
    negative_labels: Literal["unscored", "class"] = "unscored"
    merges_background: bool = False
    foreground: str = "labels other than 0"
    denominator: str = "larger"
    matches_background: bool = False


CONVENTIONS: dict[str, Convention] = {
    convention.name: convention
    for convention in (
        Convention(
            DEFAULT,
            "metrics/CONVENTIONS.md",
            (ARI, COVERING, BEST_OVERLAP, MASK_IOU),
            ari_of_nothing=math.nan,
            ari_of_one_pixel=math.nan,
            foreground="labels outside `background`, which the data set states",
            matches_background=True,
        ),
        Convention(
            "deepmind",
            "google-deepmind/multi_object_datasets, segmentation_metrics.py (and its PyTorch port)",
            (ARI,),
            ari_of_nothing=math.nan,
            ari_of_one_pixel=math.nan,
            ari_of_one_segment=math.nan,
            ari_of_single_pixels=math.nan,
            ari_looks_outside=True,
        ),
        Convention(
            "sklearn",
            "scikit-learn, adjusted_rand_score, an image at a time (so is torchmetrics' AdjustedRandScore)",
            (ARI,),
            negative_labels="class",
            foreground="what the caller selects",
        ),
        Convention(
            "genesis",
            "applied-ai-lab/genesis, utils/misc.py: average_ari (by scikit-learn), average_segcover",
            (ARI, COVERING),
            covering_of_nothing=0.0,
            negative_labels="class",
            merges_background=True,
            foreground="labels above 0",
        ),
        Convention("savi", "google-research/slot-attention-video, savi/lib/metrics.py", (ARI,)),
        Convention(
            "emorl",
            "pemami4911/EfficientMORL, lib/metrics.py",
            (ARI,),
            ari_of_nothing=0.0,
            ari_of_single_pixels=0.0,
        ),
        Convention(
            "sri",
            "pemami4911/segregate-relate-imagine, sri/metrics.py",
            (ARI,),
            ari_of_nothing=0.0,
            ari_of_single_pixels=0.0,
            foreground="labels outside a list of background labels, by default 0",
        ),
        Convention(
            "ocl",
            "amazon-science/object-centric-learning-framework, ocl/metrics/masks.py",
            (ARI, BEST_OVERLAP, MASK_IOU),
            foreground="all masks but the first, if asked",
            denominator="true",
        ),
    )
}
"""Name -> convention; ``"mobj"``, the default, first."""


def convention_for(name: str | None, family: str) -> Convention:
    """Return the convention of this name, the default for ``None``.

    Args:
        name: One of `CONVENTIONS`.
        family: The family of metrics that is to be scored.

    Raises:
        UsageError: If there is no such convention, or the project has no such metric.
    """
    if name is None:
        name = DEFAULT
    if not isinstance(name, str) or name not in CONVENTIONS:
        raise UsageError(f"convention: no convention {name!r}.{did_you_mean(str(name), CONVENTIONS)}")
    convention = CONVENTIONS[name]
    if family not in convention.defines:
        those = ", ".join(other for other, record in CONVENTIONS.items() if family in record.defines)
        raise UsageError(f"convention {name!r} defines no {family}; those that do: {those}.")
    return convention
