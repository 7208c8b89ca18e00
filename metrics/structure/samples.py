"""Structure accuracy of what a model generates: segment the samples, then judge the label maps."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from metrics.structure.verdicts import DEFAULT_RULE, REASONS, Background, StructureRule, structure_report
from multiobj_data.arrays import Array, to_numpy
from multiobj_data.errors import DataError
from multiobj_data.scenes import Prediction, dtype_kind, expect


@dataclass(frozen=True, eq=False)
class SampleStructure:
    """The share of samples that show a plausible stack.

    Attributes:
        accuracy: The share, of all samples: one without any block shows no stack. NaN for no sample.
        low: Lower end of the Wilson interval.
        high: Upper end.
        level: Of the interval, e.g. 0.95.
        n: Samples judged.
        without_blocks: How many of them show no block; ``accuracy * n / (n - without_blocks)`` leaves them out.
        reasons: `REASONS` -> number of samples, ``plausible`` among them.
        protocol: What else settles the figure: rule, background, strict; JSON values.
        reason: int8 ``[N]``, index into `REASONS` of each sample.
    """

    accuracy: float
    low: float
    high: float
    level: float
    n: int
    without_blocks: int
    reasons: dict[str, int]
    protocol: dict[str, Any]
    reason: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """Return everything but the samples' own reasons as JSON values; ``None`` for a share of nothing."""
        share = {name: getattr(self, name) if self.n else None for name in ("accuracy", "low", "high")}
        return share | {
            "level": self.level,
            "n": self.n,
            "without_blocks": self.without_blocks,
            "reasons": self.reasons,
            "protocol": self.protocol,
        }


def structure_of_samples(
    segment: Any,
    images: Array,
    *,
    background: Background | None = None,
    strict: bool = False,
    rule: StructureRule = DEFAULT_RULE,
    level: float = 0.95,
    batch_size: int = 64,
) -> SampleStructure:
    """Segment generated images and return the share that shows a plausible stack.

    A sample in which no block is found counts as not plausible (SRI: the "percent of scenes that contain a physically
    plausible stack"); ``without_blocks`` says how many there are. The figure depends on who segments: use one model
    for all whose samples are compared, or report it with each model's own segmentation, as a lower bound.

    Args:
        segment: A model with ``predict(images)``, or a function of images; it answers with a `Prediction` that has
            masks, or with label maps, whole numbers ``[B, H, W]``.
        images: uint8 ``[N, H, W, C]``.
        background: As in `structure_report`; by default the slots that a prediction names as background, and
            ``"borders"`` where it names none.
        strict: Whether centres of mass and round blocks count too.
        rule: Thresholds.
        level: Of the Wilson interval.
        batch_size: How many images to segment at a time.

    Raises:
        ValueError: If images are not uint8 ``[N, H, W, C]``.
        DataError: If an answer has neither masks nor label maps of the images' size.
    """
    expect("images", images, (None, None, None, None), "u")
    if not str(images.dtype).endswith("uint8"):  # NumPy's or torch's
        raise ValueError(f"images: expected uint8, got {images.dtype}.")
    if batch_size < 1:
        raise ValueError(f"batch_size: expected 1 or more, got {batch_size}.")
    answer = segment.predict if hasattr(segment, "predict") else segment
    if not callable(answer):
        raise ValueError(
            f"segment: expected a model with predict(images) or a function, got {type(segment).__name__}."
        )
    reasons: list[np.ndarray] = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        labels, named = _labels(answer, batch)
        where = background if background is not None else named
        reasons.append(structure_report(labels, background=where, strict=strict, rule=rule).reason)
    reason = np.concatenate([np.empty(0, np.int8), *reasons])
    count = Counter(REASONS[code] for code in reason)
    low, high = wilson_interval(count["plausible"], len(reason), level)
    return SampleStructure(
        accuracy=count["plausible"] / len(reason) if len(reason) else math.nan,
        low=low,
        high=high,
        level=level,
        n=len(reason),
        without_blocks=count["no block"],
        reasons={name: count[name] for name in REASONS if count[name]},
        protocol={
            "background": _told(background),
            "strict": strict,
            "rule": asdict(rule),
        },
        reason=reason,
    )


def wilson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a share (Wilson 1927), NaN for ``n = 0``.

    Args:
        successes: 0 to ``n``.
        n: Number of trials.
        level: Probability that the interval covers the true share, between 0 and 1.

    Raises:
        ValueError: If a number is out of its range.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes: expected 0..{n}, got {successes}.")
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level}.")
    if n == 0:
        return math.nan, math.nan
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, shrink = successes / n, 1 + z * z / n
    middle = (share + z * z / (2 * n)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def _told(background: Background | None) -> str | list[int]:
    """Return what was asked for as background, as a JSON value."""
    if background is None:
        return "as predicted"
    return background if isinstance(background, str) else [int(label) for label in background]


def _labels(answer: Callable[[Array], Any], images: Array) -> tuple[np.ndarray, Background]:
    """Return label maps of images ``[B, H, W]``, and what is background in them."""
    answered = answer(images)
    background: Background = "borders"
    if isinstance(answered, Prediction):
        if answered.masks is None:
            raise DataError(
                "segment: expected a Prediction with masks, got one without; can the model segment?"
            )
        labels = to_numpy(answered.masks).argmax(1)  # [B, H, W]; of equal ones the first slot
        background = tuple(answered.background_slots) or "borders"
    elif hasattr(answered, "dtype") and dtype_kind(answered) in "iu":
        labels = to_numpy(answered)
    else:
        what = f"an array of {answered.dtype}" if hasattr(answered, "dtype") else type(answered).__name__
        raise DataError(f"segment: expected a Prediction with masks, or whole-number label maps, got {what}.")
    if labels.shape != tuple(images.shape[:3]):
        raise DataError(
            f"segment: expected label maps {list(images.shape[:3])}, one of each image, got {list(labels.shape)}."
        )
    return labels, background
