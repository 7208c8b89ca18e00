"""The table of per-image metrics: name -> function, what it needs of a prediction, and what it means.

A new metric is a pure function (arrays in, one value an image out) and one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from metrics.boxes.scores import matched_box_iou, ocl_box_iou
from metrics.counting import count_absolute_error, count_accuracy, count_error
from metrics.likelihood import bits_per_dimension
from metrics.reconstruction import (
    SSIM_WINDOW,
    mean_squared_error,
    peak_signal_to_noise,
    root_mean_squared_error,
    squared_error,
    structural_similarity,
)
from metrics.segmentation.conventions import ARI, BEST_OVERLAP, COVERING, DEFAULT, MASK_IOU, convention_for
from metrics.segmentation.labels import labels_of_soft_masks
from metrics.segmentation.scores import (
    adjusted_rand_index,
    matched_mask_iou,
    mean_best_overlap,
    mean_segmentation_covering,
    segmentation_covering,
)
from multiobj_data.arrays import Array, to_numpy
from multiobj_data.errors import UsageError, did_you_mean
from multiobj_data.scenes import Prediction, Scenes

PRESENT = 0.5
"""A slot holds an object if its presence is at least this."""


@dataclass(frozen=True)
class MetricSpec:
    """A per-image metric and how to read it.

    Attributes:
        function: Scenes and prediction of B images to floats ``[B]``; NaN where there is no value.
        needs: Fields of `Prediction` without which the metric does not exist; ``count`` is also met by
            ``presence``.
        unit: Unit of the value; empty for a ratio.
        higher_is_better: ``None`` if neither is (an error with a sign).
        description: What the figure says, in one line.
        source: Paper and section, or ``"ours"``.
        version: Raised whenever the same input would give another figure.
        ours: What holds by our rules alone: which images are skipped, what costs nothing.
        conventional: Where projects score differently: convention's name -> ``function`` as it scores; raises
            ``UsageError`` for a convention that does not define the metric. ``None``: all agree.
        convention: By whose rules ``function`` scores; ``None``: ours.
    """

    function: Callable[[Scenes, Prediction], Array]
    needs: tuple[str, ...]
    unit: str
    higher_is_better: bool | None
    description: str
    source: str
    version: int = 1
    ours: str = ""
    conventional: Callable[[str], Callable[[Scenes, Prediction], Array]] | None = None
    convention: str | None = None

    def under(self, convention: str | None) -> MetricSpec:
        """Return the metric by another project's rules (`metrics.segmentation.conventions`), itself where all agree.

        Raises:
            UsageError: If that project does not define it.
        """
        if convention is None or self.conventional is None:
            return self
        return replace(self, function=self.conventional(convention), convention=convention)

    def missing(self, fields: Sequence[str]) -> list[str]:
        """Return what is needed but not among these fields of a prediction."""
        given = {*fields, "count"} if "presence" in fields else set(fields)
        return [name for name in self.needs if name not in given]

    def definition(self) -> dict[str, str | int | bool | None]:
        """Return what a reader of the figure must know, as JSON values."""
        definition: dict[str, str | int | bool | None] = {
            "version": self.version,
            "unit": self.unit,
            "higher_is_better": self.higher_is_better,
            "description": f"{self.description}; {self._rules()}" if self._rules() else self.description,
            "source": self.source,
        }
        if self.conventional is not None:
            definition["convention"] = self.convention or DEFAULT
        return definition

    def _rules(self) -> str:
        other = self.convention not in (None, DEFAULT)
        return f"details as {self.convention} has them, see `mobj metrics explain`" if other else self.ours


def with_count(prediction: Prediction) -> Prediction:
    """Fill in ``count``, if it is missing, as the number of slots with a presence of at least 0.5."""
    if prediction.count is not None or prediction.presence is None:
        return prediction
    return replace(prediction, count=(prediction.presence >= PRESENT).sum(1))


def _box_miou(scenes: Scenes, prediction: Prediction) -> Array:
    present = to_numpy(prediction.presence) >= PRESENT
    return matched_box_iou(scenes.boxes, scenes.count, prediction.boxes, present)


def _box_miou_ocl(scenes: Scenes, prediction: Prediction) -> Array:
    present = to_numpy(prediction.presence) >= PRESENT
    return ocl_box_iou(scenes.boxes, scenes.count, prediction.boxes, present)


def _ssim(scenes: Scenes, prediction: Prediction) -> Array:
    b, h, w, _ = scenes.image.shape
    if min(h, w) < SSIM_WINDOW:  # an image without a whole window has none
        return np.full(b, np.nan)
    return structural_similarity(scenes.image, prediction.reconstruction)


def _segmentation(metric: Callable[..., Array], family: str, **options: Any) -> dict[str, Any]:
    """Return ``function`` and ``conventional`` of a metric of label maps; slots' masks go to the largest."""

    def under(convention: str | None) -> Callable[[Scenes, Prediction], Array]:
        convention_for(convention, family)

        def score(scenes: Scenes, prediction: Prediction) -> Array:
            labels = labels_of_soft_masks(prediction.masks)
            more = options if family != MASK_IOU else options | _surplus(prediction, convention)
            background = range(scenes.background_segments)
            return metric(scenes.segments, labels, background=background, convention=convention, **more)

        return score

    return {"function": under(None), "conventional": under}


def _surplus(prediction: Prediction, convention: str | None) -> dict[str, Any]:
    """Say which slots are no objects: by our rules those that the model names, if it does."""
    named = prediction.background_slots if convention in (None, DEFAULT) else ()
    return {"predicted_background": named or None}


METRICS: dict[str, MetricSpec] = {
    "count_accuracy": MetricSpec(
        lambda scenes, prediction: count_accuracy(scenes.count, prediction.count),
        needs=("count",),
        unit="",
        higher_is_better=True,
        description="share of images whose number of objects is inferred exactly",
        source="Eslami et al. 2016, fig. 3; Xu et al. 2019, table 1 (ACC)",
    ),
    "count_error": MetricSpec(
        lambda scenes, prediction: count_error(scenes.count, prediction.count),
        needs=("count",),
        unit="objects",
        higher_is_better=None,
        description="inferred minus true number of objects; above 0 the model sees too many",
        source="ours",
    ),
    "count_absolute_error": MetricSpec(
        lambda scenes, prediction: count_absolute_error(scenes.count, prediction.count),
        needs=("count",),
        unit="objects",
        higher_is_better=False,
        description="by how many objects the inferred number is off",
        source="ours",
    ),
    "box_miou": MetricSpec(
        _box_miou,
        needs=("boxes", "presence"),
        unit="",
        higher_is_better=True,
        description="best one-to-one overlap of inferred and true boxes; missing and surplus boxes cost",
        source="Xu et al. 2019, sec. 5 (mIoU)",
        ours="images without any box are skipped",
    ),
    "box_miou_ocl": MetricSpec(
        _box_miou_ocl,
        needs=("boxes", "presence"),
        unit="",
        higher_is_better=True,
        description="as box_miou, but over the true boxes alone, so that surplus boxes are free",
        source="object-centric learning framework (OCLF)",
        ours="images without objects are skipped",
    ),
    "ari": MetricSpec(
        **_segmentation(adjusted_rand_index, ARI),
        needs=("masks",),
        unit="",
        higher_is_better=True,
        description="adjusted Rand index of all pixels, background too; chance is 0",
        source="Hubert & Arabie 1985",
    ),
    "ari_fg": MetricSpec(
        **_segmentation(adjusted_rand_index, ARI, foreground_only=True),
        needs=("masks",),
        unit="",
        higher_is_better=True,
        description="adjusted Rand index of true objects' pixels; what leaks into the background is free",
        source="Greff et al. 2019 (IODINE), sec. 4",
        ours="images with fewer than two such pixels are skipped",
    ),
    "sc_fg": MetricSpec(
        **_segmentation(segmentation_covering, COVERING, foreground_only=True),
        needs=("masks",),
        unit="",
        higher_is_better=True,
        description="segmentation covering: best IoU of each true object with any slot, by its size",
        source="Engelcke et al. 2020 (GENESIS), sec. 4.2",
        ours="images without objects are skipped",
    ),
    "msc_fg": MetricSpec(
        **_segmentation(mean_segmentation_covering, COVERING, foreground_only=True),
        needs=("masks",),
        unit="",
        higher_is_better=True,
        description="mean segmentation covering: as sc_fg, all objects weighing the same",
        source="Engelcke et al. 2020 (GENESIS), sec. 4.2 (MSC)",
        ours="images without objects are skipped",
    ),
    "mbo": MetricSpec(
        **_segmentation(mean_best_overlap, BEST_OVERLAP),
        needs=("masks",),
        unit="",
        higher_is_better=True,
        description="mean best overlap: best IoU of each true object with any slot, under the name that others print",
        source="Pont-Tuset et al. 2017; Seitzer et al. 2023 (mBO^i)",
        ours="equal to msc_fg",
    ),
    "mask_miou": MetricSpec(
        **_segmentation(matched_mask_iou, MASK_IOU),
        needs=("masks",),
        unit="",
        higher_is_better=True,
        description="best one-to-one overlap of slots and true objects",
        source="ours, after Xu et al. 2019, sec. 5 (mIoU of boxes)",
        ours="missing and surplus slots both cost",
    ),
    "squared_error": MetricSpec(
        lambda scenes, prediction: squared_error(scenes.image, prediction.reconstruction),
        needs=("reconstruction",),
        unit="per image",
        higher_is_better=False,
        description="squared error summed over pixels and channels in [0, 1]",
        source="Xu et al. 2019, table 1 (SE)",
    ),
    "mse": MetricSpec(
        lambda scenes, prediction: mean_squared_error(scenes.image, prediction.reconstruction),
        needs=("reconstruction",),
        unit="per value",
        higher_is_better=False,
        description="squared error averaged over pixels and channels in [0, 1]",
        source="Emami et al. 2021 (EfficientMORL)",
    ),
    "rmse": MetricSpec(
        lambda scenes, prediction: root_mean_squared_error(scenes.image, prediction.reconstruction),
        needs=("reconstruction",),
        unit="per value",
        higher_is_better=False,
        description="root of each image's mse; the mean is over roots",
        source="Engelcke et al. 2020 (GENESIS), code",
    ),
    "psnr": MetricSpec(
        lambda scenes, prediction: peak_signal_to_noise(scenes.image, prediction.reconstruction),
        needs=("reconstruction",),
        unit="dB",
        higher_is_better=True,
        description="-10 log10 of the mse; images reconstructed without any error are skipped",
        source="ours",
    ),
    "ssim": MetricSpec(
        _ssim,
        needs=("reconstruction",),
        unit="",
        higher_is_better=True,
        description="structural similarity, Gaussian window of 11 pixels; smaller images are skipped",
        source="Wang et al. 2004, eq. 13",
    ),
    "log_likelihood_nats": MetricSpec(
        lambda scenes, prediction: prediction.log_likelihood,
        needs=("log_likelihood",),
        unit="nats per image",
        higher_is_better=True,
        description="log likelihood of an image, or a bound on it; compare equal kinds and densities only",
        source="Eslami et al. 2016 (ELBO)",
    ),
    "bits_per_dimension": MetricSpec(
        lambda scenes, prediction: bits_per_dimension(prediction.log_likelihood, scenes.image.shape[1:]),
        needs=("log_likelihood",),
        unit="bits",
        higher_is_better=False,
        description="minus log likelihood over H W C ln 2; add 8 to compare with models of 256 grey levels",
        source="Engelcke et al. 2021 (GENESIS-v2)",
    ),
}


def find_metrics(names: Sequence[str] | None = None) -> dict[str, MetricSpec]:
    """Return metrics by name, all built-in ones for ``None``.

    Args:
        names: Built-in ids, ``module:attribute`` or installed entry points of the group ``mobj.metrics``.

    Raises:
        UsageError: If a name is unknown or does not lead to a `MetricSpec`.
    """
    if names is None:
        return dict(METRICS)
    return {name: METRICS[name] if name in METRICS else _external(name) for name in names}


def _external(name: str) -> MetricSpec:
    from multiobj_data.plugins import names, resolve

    if ":" not in name and name not in names("metrics"):
        known = [*METRICS, *names("metrics")]
        raise UsageError(
            f"no metric named {name!r}.{did_you_mean(name, known)} Your own: give package.module:attribute."
        )
    found = resolve("metrics", name)
    if not isinstance(found, MetricSpec):
        raise UsageError(f"metric {name!r}: expected a metrics.MetricSpec, got {type(found).__name__}.")
    return found
