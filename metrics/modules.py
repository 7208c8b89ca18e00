"""The metrics as ``torchmetrics.Metric``s, for training loops: ``pip install 'mobj[torchmetrics]'``.

`PerImage` wraps any per-image function; the classes below are ready ones. They are thin: the functions do the work,
on the tensors' device.

``compute()`` is a collective call: every process must make it. A ``DistributedSampler`` repeats images to fill its
last batch, which `PerImage` cannot see; `PerImageById` counts every image once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from metrics import boxes, counting, reconstruction, segmentation
from metrics.running import Mean
from metrics.table import METRICS

try:
    from torchmetrics import Metric
except ImportError as error:  # pragma: no cover
    raise ImportError("metrics.modules needs torchmetrics: pip install 'mobj[torchmetrics]'.") from error

STATISTICS = ("mean", "stderr", "n", "skipped")
_OF_METRIC = {
    *("sync_on_compute", "dist_sync_on_step", "compute_on_cpu", "compute_with_cache"),
    *("process_group", "dist_sync_fn", "distributed_available_fn"),
}


class _OfImages(Metric):
    """What both wrappers share: the function, and states whose precision no cast of the model can change."""

    is_differentiable = False
    full_state_update = False
    higher_is_better: bool | None = None

    def __init__(self, function: Callable[..., Any], summary: bool, kwargs: dict[str, Any]) -> None:
        super().__init__(**{name: kwargs.pop(name) for name in _OF_METRIC & kwargs.keys()})
        self.function, self.summary, self.kwargs = function, summary, kwargs

    def _scores(self, arrays: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        """Return the function's float64 ``[B]`` on this metric's device."""
        scores = torch.as_tensor(self.function(*arrays, **self.kwargs, **kwargs))
        if scores.ndim != 1:
            name = getattr(self.function, "__name__", "the function")
            raise ValueError(f"{name}: expected one value an image, [B], got {list(scores.shape)}.")
        return scores.detach().to(self.device, torch.float64)

    def _answer(self, mean: Tensor, stderr: Tensor, n: Tensor, skipped: Tensor) -> Tensor | dict[str, Tensor]:
        return dict(zip(STATISTICS, (mean, stderr, n, skipped), strict=True)) if self.summary else mean

    def _apply(self, fn: Callable, *args: Any, **kwargs: Any) -> Any:
        """Follow the model to its device but not to its precision: sums in half precision are worthless."""
        return super()._apply(lambda tensor: tensor.to(fn(tensor.new_zeros(1)).device), *args, **kwargs)


class PerImage(_OfImages):
    """Mean over images of any function that returns one value an image.

    Keeps a sum, a sum of squares and two counts, in float64 whatever the model's precision.

    Args:
        function: Arrays to floats ``[B]``; NaN is skipped and counted.
        summary: ``compute()`` returns a dict of ``mean``, ``stderr``, ``n`` and ``skipped`` instead of the mean.
        **kwargs: Those of ``torchmetrics.Metric``; the others are handed to ``function``.
    """

    total: Tensor
    squares: Tensor
    n: Tensor
    skipped: Tensor

    def __init__(self, function: Callable[..., Any], *, summary: bool = False, **kwargs: Any) -> None:
        super().__init__(function, summary, kwargs)
        for name in ("total", "squares", "n", "skipped"):
            dtype = torch.float64 if name in ("total", "squares") else torch.int64
            self.add_state(name, default=torch.zeros((), dtype=dtype), dist_reduce_fx="sum")

    def update(self, *arrays: Any, **kwargs: Any) -> None:
        """Score a batch: the arguments of the function."""
        scores = self._scores(arrays, kwargs)
        scored = ~scores.isnan()
        values = torch.where(scored, scores, 0.0)
        self.total = self.total + values.sum()
        self.squares = self.squares + values.square().sum()
        self.n = self.n + scored.sum()
        self.skipped = self.skipped + (~scored).sum()

    def compute(self) -> Tensor | dict[str, Tensor]:
        """Return the mean over the scored images (NaN if there is none), or the summary."""
        n = self.n.double()
        mean = self.total / n  # 0/0 is NaN
        variance = (self.squares - self.total * mean).clamp(min=0) / (n - 1)
        stderr = torch.where(n > 1, (variance / n).sqrt(), math.nan)
        return self._answer(mean, stderr, self.n, self.skipped)


class PerImageById(_OfImages):
    """`PerImage` that counts every image once, however often samplers repeat it.

    Keeps 16 bytes an image, which are gathered by every process; the result is `metrics.Mean`'s, bit for bit the same
    for any number of processes.

    Args:
        function: As in `PerImage`.
        summary: As there.
        **kwargs: As there.
    """

    values: list[Tensor]
    ids: list[Tensor]

    def __init__(self, function: Callable[..., Any], *, summary: bool = False, **kwargs: Any) -> None:
        super().__init__(function, summary, kwargs)
        self.add_state("values", default=[], dist_reduce_fx="cat")
        self.add_state("ids", default=[], dist_reduce_fx="cat")

    def update(self, ids: Tensor, *arrays: Any, **kwargs: Any) -> None:
        """Score a batch of images with these whole numbers ``[B]`` as ids."""
        scores = self._scores(arrays, kwargs)
        ids = torch.as_tensor(ids).to(self.device)
        if ids.shape != scores.shape or ids.is_floating_point() or ids.dtype == torch.bool:
            raise ValueError(
                f"ids: expected {len(scores)} whole numbers, one an image, got {list(ids.shape)} {ids.dtype}."
            )
        self.values.append(scores)
        self.ids.append(ids.long())

    def compute(self) -> Tensor | dict[str, Tensor]:
        """Return the mean over the scored images, or the summary."""
        mean = Mean()
        if len(self.values):
            mean.update(_joined(self.values), _joined(self.ids))
        facts = mean.summary()
        mean_, stderr = (torch.tensor(facts[key], dtype=torch.float64) for key in STATISTICS[:2])
        n, skipped = (torch.tensor(facts[key], dtype=torch.int64) for key in STATISTICS[2:])
        return self._answer(*(tensor.to(self.device) for tensor in (mean_, stderr, n, skipped)))

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        """Let a process without images send empty tensors of the right type, without which gathering fails."""
        for state, dtype in ((self.values, torch.float64), (self.ids, torch.int64)):
            if not len(state):
                state.append(torch.zeros(0, dtype=dtype, device=self.device))
        super()._sync_dist(*args, **kwargs)


def _joined(state: list[Tensor] | Tensor) -> Tensor:
    """Return a list state, which is one tensor after synchronisation."""
    return state if isinstance(state, Tensor) else torch.cat(state)


def _ready(name: str, function: Callable[..., Any], entry: str, **options: Any) -> type[PerImage]:
    """Return a `PerImage` class of a function; what is better, and what it says, come from the table of metrics."""
    spec = METRICS[entry]

    def __init__(self: PerImage, *, summary: bool = False, **kwargs: Any) -> None:  # noqa: N807
        PerImage.__init__(self, function, summary=summary, **options | kwargs)

    call = ", ".join([f"metrics.{function.__name__}", *(f"{key}={value}" for key, value in options.items())])
    said = f"{spec.definition()['description']} ({spec.source})"
    doc = f"Mean over images of `{call}`: {said}. Further arguments are handed to it."
    contents = {"__init__": __init__, "__doc__": doc, "__module__": __name__}
    return type(name, (PerImage,), contents | {"higher_is_better": spec.higher_is_better})


_FOREGROUND: dict[str, Any] = {"foreground_only": True}
AdjustedRandIndex = _ready("AdjustedRandIndex", segmentation.adjusted_rand_index, "ari")
ForegroundARI = _ready("ForegroundARI", segmentation.adjusted_rand_index, "ari_fg", **_FOREGROUND)
SegmentationCovering = _ready(
    "SegmentationCovering", segmentation.segmentation_covering, "sc_fg", **_FOREGROUND
)
MeanSegmentationCovering = _ready(
    "MeanSegmentationCovering", segmentation.mean_segmentation_covering, "msc_fg", **_FOREGROUND
)
MeanBestOverlap = _ready("MeanBestOverlap", segmentation.mean_best_overlap, "mbo")
MatchedMaskIoU = _ready("MatchedMaskIoU", segmentation.matched_mask_iou, "mask_miou")
CountAccuracy = _ready("CountAccuracy", counting.count_accuracy, "count_accuracy")
CountError = _ready("CountError", counting.count_error, "count_error")
CountAbsoluteError = _ready("CountAbsoluteError", counting.count_absolute_error, "count_absolute_error")
MatchedBoxIoU = _ready("MatchedBoxIoU", boxes.matched_box_iou, "box_miou")
OclBoxIoU = _ready("OclBoxIoU", boxes.ocl_box_iou, "box_miou_ocl")
SquaredError = _ready("SquaredError", reconstruction.squared_error, "squared_error")
MeanSquaredError = _ready("MeanSquaredError", reconstruction.mean_squared_error, "mse")
RootMeanSquaredError = _ready("RootMeanSquaredError", reconstruction.root_mean_squared_error, "rmse")
PeakSignalToNoise = _ready("PeakSignalToNoise", reconstruction.peak_signal_to_noise, "psnr")
StructuralSimilarity = _ready("StructuralSimilarity", reconstruction.structural_similarity, "ssim")
