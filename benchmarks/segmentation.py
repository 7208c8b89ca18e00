"""Segmentation metrics against scikit-learn image by image, and against the usual loop over pairs of masks.

    python benchmarks/segmentation.py [--images 320] [--device cuda] [--memory]

All on one core, in one run, taking turns; every time is that core's, the best of all turns. Label maps are scene-like
(`discs`: up to six before a background, predicted in nine slots, a tenth of the pixels wrong) or drawn pixel by pixel
(`noise`). ``--device`` adds tensors on an accelerator. ``--memory`` scores a million maps of 64 x 64 as a stream, and
prints the largest resident memory.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from metrics import (
    Mean,
    adjusted_rand_index,
    matched_mask_iou,
    mean_best_overlap,
    mean_segmentation_covering,
    segmentation_covering,
)

TRUE, SLOTS = 7, 9
GOALS = {"ARI": 20, "SC": 50}


def discs(rng: np.random.Generator, n: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return true and predicted label maps, uint8 ``[n, size, size]``."""
    y, x = np.indices((size, size), dtype=np.float32)
    true = np.zeros((n, size, size), np.uint8)
    centres, radii = rng.random((n, TRUE, 2)) * size, size * rng.uniform(0.08, 0.2, (n, TRUE))
    for label in range(1, TRUE):
        (cy, cx), r = centres[:, label].T[..., None, None], radii[:, label, None, None]
        true[(y - cy) ** 2 + (x - cx) ** 2 < r**2] = label
    slots = rng.permuted(np.tile(np.arange(SLOTS, dtype=np.uint8), (n, 1)), axis=1)
    predicted = np.take_along_axis(slots, true.reshape(n, -1).astype(int), 1).reshape(true.shape)
    wrong = rng.random(true.shape, np.float32) < 0.1
    predicted[wrong] = rng.integers(0, SLOTS, int(wrong.sum()), np.uint8)
    return true, predicted


def noise(rng: np.random.Generator, n: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    true = rng.integers(0, TRUE, (n, size, size), np.uint8)
    return true, rng.integers(0, SLOTS, (n, size, size), np.uint8)


def scikit_learn(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    from sklearn.metrics import adjusted_rand_score

    return np.array([adjusted_rand_score(t.ravel(), p.ravel()) for t, p in zip(true, predicted, strict=True)])


def loop_over_masks(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Segmentation covering as evaluators write it: true masks against predicted ones, unscored pixels apart."""
    scores = np.empty(len(true))
    for i, (t, p) in enumerate(zip(true, predicted, strict=True)):
        total, scored = 0.0, t >= 0
        for label in np.unique(t[scored]):
            segment, best = t == label, 0.0
            for slot in np.unique(p):
                mask = (p == slot) & scored
                if mask.any():
                    best = max(best, (segment & mask).sum() / (segment | mask).sum())
            total += segment.sum() * best
        scores[i] = total / t.size
    return scores


def best(
    contenders: dict[str, Callable[[], Any]], turns: int, clock: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """Return each one's shortest time; they take turns, so that a busy machine slows all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(turns):
        for name, run in contenders.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return {name: min(times) for name, times in seconds.items()}


def compare(size: int, n: int, turns: int, kind: Callable[..., tuple[np.ndarray, np.ndarray]]) -> None:
    true, predicted = kind(np.random.default_rng(size), n, size)
    wide = true.astype(np.int64), predicted.astype(np.int64)
    np.testing.assert_allclose(adjusted_rand_index(true, predicted), scikit_learn(true, predicted), atol=1e-9)
    np.testing.assert_allclose(
        segmentation_covering(true, predicted), loop_over_masks(true, predicted), atol=1e-9
    )
    ours: dict[str, Callable[[], Any]] = {
        "ARI": lambda: adjusted_rand_index(true, predicted),
        "ARI, int64": lambda: adjusted_rand_index(*wide),
        "ARI-FG": lambda: adjusted_rand_index(true, predicted, foreground_only=True),
        "SC": lambda: segmentation_covering(true, predicted),
        "mSC": lambda: mean_segmentation_covering(true, predicted),
        "mBO": lambda: mean_best_overlap(true, predicted),
        "mask mIoU": lambda: matched_mask_iou(true, predicted),
    }
    peers = {
        "ARI": lambda: scikit_learn(true, predicted),
        "ARI, int64": lambda: scikit_learn(*wide),
        "SC": lambda: loop_over_masks(true, predicted),
    }
    fast = best(ours, 3 * turns)
    slow = best(peers, turns)
    print(f"{n} images of {size} x {size}, {kind.__name__}: ms an image")
    for name, seconds in fast.items():
        line = f"  {name:12s} {1e3 * seconds / n:8.4f}"
        if name in slow:
            ratio = slow[name] / seconds
            goal = f", goal {GOALS[name]}" if name in GOALS else ""
            line += f"   peer {1e3 * slow[name] / n:8.3f}   {ratio:6.0f} x{goal}"
        print(line)


def on_device(device: str, turns: int) -> None:
    """Time tensors on an accelerator, and compare with reading them once."""
    import torch

    n, size = 4096, 128
    pair = [torch.tensor(maps, device=device) for maps in noise(np.random.default_rng(0), n, size)]

    def timed(run: Callable[[], Any]) -> Callable[[], None]:
        def once() -> None:
            run()
            torch.cuda.synchronize()

        return once

    contenders = {
        "reading both maps": timed(lambda: (pair[0].sum(), pair[1].sum())),
        "ARI": timed(lambda: adjusted_rand_index(*pair)),
        "ARI-FG": timed(lambda: adjusted_rand_index(*pair, foreground_only=True)),
        "SC": timed(lambda: segmentation_covering(*pair)),
    }
    for run in contenders.values():
        run()
    print(f"{n} images of {size} x {size}, noise, {torch.cuda.get_device_name(device)}: ms an image")
    for name, seconds in best(contenders, 3 * turns, time.perf_counter).items():
        rate = 2 * n * size * size / seconds / 1e9
        print(f"  {name:18s} {1e3 * seconds / n:8.5f}   {rate:7.1f} GB of label maps a second")


def stream(n: int, batch: int) -> None:
    """Score maps that are drawn, scored and forgotten batch by batch."""
    rng = np.random.default_rng(0)
    means = {name: Mean() for name in ("ARI-FG", "mSC, foreground")}
    true, predicted = discs(rng, batch, 64)
    before = _resident()
    start = time.perf_counter()
    for first in range(0, n, batch):
        size = min(batch, n - first)
        rows, shift = rng.permutation(batch)[:size], int(rng.integers(64))
        t, p = true[rows], np.roll(predicted[rows], shift // 16, 2)
        ids = np.arange(first, first + size)
        means["ARI-FG"].update(adjusted_rand_index(t, p, foreground_only=True), ids)
        means["mSC, foreground"].update(mean_segmentation_covering(t, p, foreground_only=True), ids)
    seconds = time.perf_counter() - start
    print(f"{n:,} label maps of 64 x 64 as a stream, two metrics: {seconds:.0f} s, drawing included")
    for name, mean in means.items():
        summary = mean.summary()
        print(f"  {name:16s} {summary['mean']:.4f} +- {summary['stderr']:.4f}, n {summary['n']:,}")
    print(f"  largest resident memory: {_resident():.0f} MB, {before:.0f} MB of it before the first batch")


def _resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--device", help="also on this accelerator, e.g. cuda")
    parser.add_argument("--memory", action="store_true", help="a million maps as a stream instead")
    options = parser.parse_args()
    if options.memory:
        stream(1_000_000, 1000)
        return
    with threadpool_limits(1):
        for kind in (discs, noise):
            for size in (64, 128):
                compare(size, options.images, options.turns, kind)
    if options.device:
        on_device(options.device, options.turns)


if __name__ == "__main__":
    main()
