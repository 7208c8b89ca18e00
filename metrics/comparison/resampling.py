"""Means over images and seeds drawn with replacement: what else a comparison might have found."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

RESAMPLES = 2000
_MOST_DRAWN = 40_000_000  # images in all sets together: of large sets, fewer are drawn
_AT_ONCE = 500_000  # so that what is worked on stays in the cache


class Resampling:
    """Draws sets of images, and of seeds; the same draw serves everything of the same size.

    Args:
        seed: Of all draws.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._kept: dict[tuple[int, int], np.ndarray] = {}

    def differences(self, ours: np.ndarray, theirs: np.ndarray, *, paired: bool) -> np.ndarray:
        """Return the difference of the means in every drawn set, float64 ``[R]``.

        Args:
            ours: Values of S seeds ``[S, N]``, without NaN, at least two images.
            theirs: Values of other seeds ``[S', N']``.
            paired: Whether the N images are the same on both sides.
        """
        if paired:
            easy = theirs[0]  # an image's own level cancels; without it, equal runs differ by 0 exactly
            drawn = self.image_means(np.concatenate([ours, theirs]) - easy)
            sides = [drawn[:, : len(ours)], drawn[:, len(ours) :]]
        else:
            sides = [self.image_means(values, side) for side, values in enumerate((ours, theirs))]
        fewest = min(map(len, sides))
        rng = np.random.default_rng((self.seed, ours.shape[1], len(ours), len(theirs)))
        left, right = ((side[:fewest] * seed_weights(side.shape[1], rng, fewest)).sum(1) for side in sides)
        return left - right

    def image_means(self, values: np.ndarray, side: int = 0) -> np.ndarray:
        """Return each row's mean over images drawn with replacement, ``[R, S]`` for ``values [S, N]``."""
        n = values.shape[1]
        times = self._times(n, side)
        step = max(1, _AT_ONCE // n)
        columns = np.ascontiguousarray(values.T)  # [N, S]
        parts = [times[i : i + step].astype(np.float64) @ columns for i in range(0, len(times), step)]
        return np.concatenate(parts) / n

    def _times(self, n: int, side: int) -> np.ndarray:
        """Return how often each of ``n`` images is in each set, uint8 ``[R, n]``; the last two are kept."""
        if (n, side) not in self._kept:
            while len(self._kept) > 1:
                self._kept.pop(next(iter(self._kept)))
            rng = np.random.default_rng((self.seed, n, side))
            self._kept[n, side] = _drawn(n, int(np.clip(_MOST_DRAWN // n, 200, RESAMPLES)), rng)
        return self._kept[n, side]


def _drawn(n: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    times = np.empty((resamples, n), np.uint8)  # of a mean of 1: 255 never comes
    step = max(1, _AT_ONCE // n)
    for start in range(0, resamples, step):
        some = times[start : start + step]
        codes = rng.integers(0, n, some.shape) + n * np.arange(len(some))[:, None]
        some[:] = np.bincount(codes.ravel(), minlength=some.size).reshape(some.shape)
    return times


def seed_weights(seeds: int, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """Return weights of seeds drawn with replacement, ``[R, S]``, summing to 1.

    Their deviations are widened by sqrt(s / (s - 1)): the variance of a weighted mean is then the unbiased one.
    """
    if seeds == 1:
        return np.ones((resamples, 1))
    drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds
    return 1 / seeds + (drawn - 1 / seeds) * math.sqrt(seeds / (seeds - 1))


def interval_of(drawn: Sequence[float] | np.ndarray, level: float) -> tuple[float, float]:
    """Return the percentile interval of what was found in drawn sets."""
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
