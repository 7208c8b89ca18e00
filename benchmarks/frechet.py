"""The Frechet distance of 2048 features against `scipy.linalg.sqrtm`, the way of most FID code, in the same run.

Ours is `metrics.frechet_distance` from statistics (n > d) and from features (n < d). The peer gets the same
covariances. Both give a figure; how far they agree is printed, and what a set is away from itself. Seconds are those of
one core, without what other programs take of it.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace

for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{library}_NUM_THREADS"] = "1"  # before NumPy and SciPy load their linear algebra

import numpy as np  # noqa: E402
import scipy.linalg  # noqa: E402

from metrics import GaussianStatistics, frechet_distance  # noqa: E402


def by_square_root(one: GaussianStatistics, two: GaussianStatistics) -> float:
    root = scipy.linalg.sqrtm(one.covariance @ two.covariance)
    shift = one.mean - two.mean
    return float(shift @ shift + np.trace(one.covariance + two.covariance) - 2 * np.trace(root).real)


def features(rng: np.random.Generator, n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Two sets like Inception's: at least 0, correlated, of scales that differ a hundredfold."""
    mix = rng.normal(size=(d, d)) * np.geomspace(1, 0.01, d) / d**0.5
    return tuple(np.maximum(rng.normal(size=(n, d)) @ mix * scale + 0.2, 0) for scale in (1, 1.2))  # type: ignore[return-value]


def timed(run: Callable[[], float], repeats: int) -> tuple[float, float]:
    """Return the shortest time in seconds, and the figure."""
    times, value = [], 0.0
    for _ in range(repeats):
        start = time.process_time()
        value = run()
        times.append(time.process_time() - start)
    return min(times), value


def compare(title: str, ours: Callable[[], float], theirs: Callable[[], float], repeats: int) -> None:
    fast, mine = timed(ours, repeats)
    slow, other = timed(theirs, 1)
    print(
        f"{title}: {fast:.2f} s, sqrtm {slow:.1f} s, {slow / fast:.0f} times as fast; {mine:.9g} against {other:.9g}, "
        f"relative difference {abs(mine - other) / abs(other):.1e}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dimensions", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    d, rng = given.dimensions, np.random.default_rng(0)

    x, y = features(rng, 5 * d, d)
    start = time.process_time()
    one, two = GaussianStatistics.of(x), GaussianStatistics.of(y)
    print(f"statistics of 2 x {len(x):,} images: {time.process_time() - start:.2f} s")
    compare(
        f"n = {len(x):,} > d = {d}, from statistics",
        lambda: frechet_distance(replace(one), replace(two)),  # copies, which have kept nothing
        lambda: by_square_root(one, two),
        given.repeats,
    )
    seconds, _ = timed(lambda: frechet_distance(one, replace(two)), given.repeats)
    print(f"  the next model against the same real statistics: {seconds:.2f} s")
    print(f"  a set from itself: {frechet_distance(one, one):.1e}, sqrtm {by_square_root(one, one):.1e}")

    x, y = x[: d // 4], y[: d // 4]
    one, two = GaussianStatistics.of(x), GaussianStatistics.of(y)
    compare(
        f"n = {len(x):,} < d = {d}, from features",
        lambda: frechet_distance(x, y),
        lambda: by_square_root(one, two),
        given.repeats,
    )
    print(f"  a set from itself: {frechet_distance(x, x):.1e}, sqrtm {by_square_root(one, one):.1e}")
    seconds, value = timed(lambda: frechet_distance(replace(one), replace(two)), given.repeats)
    print(f"  from statistics of so few: {seconds:.2f} s, {value:.9g}")


if __name__ == "__main__":
    main()
