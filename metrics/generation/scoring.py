"""How well a model generates: FID and KID against real images, with the floor of real against real, and a stamp.

The stamp holds everything that moves the figures: features, weights, resizing, normalisation, rounding, how many
images of each set, which images, seeds. Two figures compare if their stamps differ in ``generated`` alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from metrics.evaluation.environment import environment
from metrics.generation.features import FeatureExtractor, extract
from metrics.generation.features.protocols import QUANTISATION
from metrics.generation.frechet import frechet_distance, frechet_floor
from metrics.generation.gaussians import GaussianStatistics
from metrics.generation.image_sets import ImageSet, Samples, batches_of
from metrics.generation.kernel import KernelDistance, kernel_distance
from multiobj_data.errors import UsageError

logger = logging.getLogger(__name__)

ADVISED = 2048
"""Fewer images than this make FID depend on how many there are more than on what they show (Heusel et al. 2017)."""


@dataclass(frozen=True, eq=False)
class GenerationScores:
    """Figures of a set of generated images.

    Attributes:
        fid: Squared Frechet distance of the features.
        kid: Kernel distance; ``None`` where statistics were given instead of images, or there are too few.
        floor: FID between two disjoint halves of the real images; ``None`` likewise.
        floor_n: Images in each half: compare the floor with ``fid`` where it equals the n of both sets.
        n: Images compared: ``real`` (``None`` if nobody wrote it down) and ``generated``.
        stamp: Everything that moves the figures; JSON values.
        warnings: What a reader must know, one sentence each.
        real_statistics: Of the real images compared; to be saved and given instead of them.
    """

    fid: float
    kid: KernelDistance | None
    floor: float | None
    floor_n: int | None
    n: dict[str, int | None]
    stamp: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    real_statistics: GaussianStatistics | None = None

    def to_json(self) -> dict[str, Any]:
        """Return figures, stamp and warnings as JSON values."""
        kid = None
        if self.kid is not None:
            kid = self.kid._asdict() | ({} if self.kid.subsets > 1 else {"stderr": None, "std": None})
        return {
            "fid": self.fid,
            "kid": kid,
            "floor": None if self.floor is None else {"fid": self.floor, "n": self.floor_n},
            "n": self.n,
            "stamp": self.stamp,
            "warnings": self.warnings,
        }


@dataclass(frozen=True)
class _Side:
    """One of the two sets: its features, or only their statistics."""

    statistics: GaussianStatistics
    features: np.ndarray | None
    stamp: dict[str, Any]


def score_samples(
    generated: Samples | ImageSet | GaussianStatistics,
    real: ImageSet | GaussianStatistics,
    extractor: FeatureExtractor,
    *,
    n: int | None = None,
    seed: int = 0,
    unequal: bool = False,
    floor: bool = True,
    batch_size: int = 250,
    kid_subsets: int = 100,
    kid_subset_size: int = 1000,
    facts: Mapping[str, Any] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> GenerationScores:
    """Return FID and KID of generated against real images.

    Args:
        generated: A model's `Samples`, a set of images (`metrics.generation.image_sets`), or statistics of features.
        real: Real images, or statistics of their features by the same extractor.
        extractor: See `metrics.generation.features`.
        n: Images of each set, chosen at random by ``seed`` where there are more; by default all of both, which must
            then be equally many. Required for `Samples`, unless the real images say how many.
        seed: Chooses images, the floor's halves, and KID's subsets.
        unequal: Allow sets of different sizes: FID falls with n, so that such figures compare with no others.
        floor: Whether to compute the floor; it takes the features of up to n more real images.
        batch_size: Images at a time.
        kid_subsets: See `metrics.generation.kernel.kernel_distance`.
        kid_subset_size: Likewise; n where that is less.
        facts: Further facts for the stamp, such as ``temperature``; JSON values.
        on_progress: Called after each batch with its number of images.

    Raises:
        UsageError: If the numbers of images do not fit, or statistics are of another extractor.
        DataError: If images or features cannot be had.
        ValueError: If statistics and features have different dimensions.
    """
    rng = np.random.default_rng(seed)
    wanted = _sizes(generated, real, n, unequal)
    extra = wanted["real"] if floor else 0
    real_side, more = _real_side(real, extractor, wanted["real"], extra, rng, batch_size, on_progress)
    made = _generated_side(generated, extractor, wanted["generated"], rng, batch_size, on_progress)
    counts = {"real": real_side.statistics.n, "generated": made.statistics.n}
    _refuse_unequal(counts, unequal)
    kid: KernelDistance | None = None
    halves: tuple[float | None, int | None] = (None, None)
    if real_side.features is not None and made.features is not None:
        size = min(kid_subset_size, len(real_side.features), len(made.features))
        kid = kernel_distance(
            real_side.features, made.features, rng=rng, subsets=kid_subsets, subset_size=size
        )
    if floor and more is not None and len(more) >= 4:
        halves = frechet_floor(more, rng=rng, n=wanted["real"])
    stamp = {
        "features": dict(extractor.stamp),
        "quantisation": QUANTISATION,
        "n": counts,
        "seed": seed,
        "kid": None if kid is None else {"subsets": kid.subsets, "subset_size": kid.subset_size, "degree": 3},
        "real": real_side.stamp,
        "generated": made.stamp | dict(facts or {}),
        "environment": environment(),
    }
    warnings = _warnings(counts, len(made.statistics.mean), halves[1])
    if made.stamp == real_side.stamp and {"sha256", "checksum", "identity_sha256"} & made.stamp.keys():
        warnings.append("both sets are the same images: the figures say nothing about a model.")
    for warning in warnings:
        logger.warning(warning)
    fid = frechet_distance(*(_best(side) for side in (real_side, made)))
    return GenerationScores(fid, kid, *halves, counts, stamp, warnings, real_side.statistics)


def _best(side: _Side) -> np.ndarray | GaussianStatistics:
    """Return features where there are too few for statistics to be exact."""
    few = side.features is not None and len(side.features) <= side.features.shape[1]
    return side.features if few and side.features is not None else side.statistics


def _sizes(generated: Any, real: Any, n: int | None, unequal: bool) -> dict[str, int | None]:
    """Return how many images of each set to take; ``None`` for statistics."""
    if n is not None and n < 2:
        raise UsageError(f"n: expected 2 or more images of each set, got {n}.")
    there = {
        name: None if isinstance(given, GaussianStatistics | Samples) else len(given)
        for name, given in (("real", real), ("generated", generated))
    }
    for name, count in there.items():
        if n is not None and count is not None and count < n:
            raise UsageError(f"n: expected at most {count:,}, the number of {name} images, got {n:,}.")
    sizes = {name: count if n is None or count is None else n for name, count in there.items()}
    if isinstance(generated, Samples):
        sizes["generated"] = n or sizes["real"] or (real.n if isinstance(real, GaussianStatistics) else None)
        if sizes["generated"] is None:
            raise UsageError("n: say how many images to draw; the statistics of the real ones do not tell.")
    for given in (generated, real):
        if (
            isinstance(given, GaussianStatistics)
            and n is not None
            and given.n not in (None, n)
            and not unequal
        ):
            raise UsageError(
                f"n: the statistics are of {given.n:,} images, not of {n:,}; leave n out, or take images."
            )
    _refuse_unequal(sizes, unequal)
    return sizes


def _refuse_unequal(sizes: Mapping[str, int | None], unequal: bool) -> None:
    a, b = sizes["real"], sizes["generated"]
    if a is not None and b is not None and a != b and not unequal:
        raise UsageError(
            f"expected as many generated images as real ones, got {b:,} and {a:,}: FID falls with n, so that only "
            f"equal numbers compare. Give n={min(a, b)}, or allow unequal sets."
        )


def _real_side(
    real: ImageSet | GaussianStatistics,
    extractor: FeatureExtractor,
    n: int | None,
    extra: int | None,
    rng: np.random.Generator,
    size: int,
    on_progress: Callable[[int], None] | None,
) -> tuple[_Side, np.ndarray | None]:
    """Return the real images compared, and features of these and of up to ``extra`` more for the floor."""
    if isinstance(real, GaussianStatistics):
        return _of_statistics(real, extractor), None
    chosen = rng.permutation(len(real))
    taken = n or len(real)
    features = extract(extractor, batches_of(real, chosen[: taken + (extra or 0)], size), on_progress)
    side = _Side(_statistics(features[:taken], extractor, real.stamp), features[:taken], dict(real.stamp))
    return side, features


def _generated_side(
    generated: Samples | ImageSet | GaussianStatistics,
    extractor: FeatureExtractor,
    n: int | None,
    rng: np.random.Generator,
    size: int,
    on_progress: Callable[[int], None] | None,
) -> _Side:
    if isinstance(generated, GaussianStatistics):
        return _of_statistics(generated, extractor)
    if isinstance(generated, Samples):
        batches = generated.batches(n or 0, size)
    else:
        batches = batches_of(generated, rng.permutation(len(generated))[:n], size)
    features = extract(extractor, batches, on_progress)
    return _Side(_statistics(features, extractor, generated.stamp), features, dict(generated.stamp))


def _statistics(
    features: np.ndarray, extractor: FeatureExtractor, images: Mapping[str, Any]
) -> GaussianStatistics:
    stamp = {"features": dict(extractor.stamp), "quantisation": QUANTISATION, "images": dict(images)}
    return GaussianStatistics.of(features, stamp)


def _of_statistics(given: GaussianStatistics, extractor: FeatureExtractor) -> _Side:
    """Return statistics as a side; what their stamp says about features must be true of the extractor."""
    theirs = given.stamp.get("features")
    if theirs is not None and theirs != extractor.stamp:
        differing = sorted(
            key for key in theirs | extractor.stamp if theirs.get(key) != extractor.stamp.get(key)
        )
        raise UsageError(
            f"the statistics were made with other features ({', '.join(differing)} differ); take the same features, "
            "weights and protocol, or give the images."
        )
    if len(given.mean) != extractor.stamp.get("dimensions", len(given.mean)):
        raise UsageError(
            f"the statistics have {len(given.mean)} dimensions, the features {extractor.stamp['dimensions']}; they "
            "were made with other features."
        )
    stamp = given.stamp.get("images", {"kind": "statistics, of images that nobody wrote down"})
    return _Side(given, None, dict(stamp))


def _warnings(counts: Mapping[str, int | None], dimensions: int, floor_n: int | None) -> list[str]:
    found = []
    known = [count for count in counts.values() if count is not None]
    if known and min(known) < ADVISED:
        found.append(
            f"FID of {min(known):,} images is biased upwards; take {ADVISED:,} or more, papers take 10,000, and "
            "compare equal numbers only."
        )
    if known and min(known) <= dimensions:
        found.append(
            f"{min(known):,} images do not span {dimensions:,} features; KID is the safer figure here."
        )
    if len(known) < 2:
        found.append("the statistics do not say of how many images they are; FID depends on it.")
    if len(set(known)) > 1:
        found.append(
            f"the sets differ in size ({known[0]:,} and {known[1]:,}); this FID compares with no others."
        )
    if floor_n is not None and known and floor_n < min(known):
        found.append(
            f"the floor is of halves of {floor_n:,} images, as there are no more, and so lies higher than one of "
            f"{min(known):,} would."
        )
    return found
