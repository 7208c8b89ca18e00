"""Scenes a second: shards on disk against the loop-an-image generators of the literature.

The peer works as Pyro's and `observations`' generators do: for each image, draw digits, resize each with
Pillow, pad each to the whole canvas, add them up, and start again if a pixel exceeds 255. It keeps images in
memory and nothing else. Ours writes images, label maps, boxes and all factors into HDF5 shards with their
SHA-256, worker start-up included.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from multiobj_data.generation import generate
from multiobj_data.plan import Plan
from multiobj_data.sprites.digits import load_digits


def peer(images: np.ndarray, counts: list[int], n: int, rng: np.random.Generator) -> float:
    """Return scenes a second of the loop, over ``n`` scenes kept in memory."""
    start = time.perf_counter()
    for _ in range(n):
        one_scene(images, int(rng.choice(counts)), rng)
    return n / (time.perf_counter() - start)


def one_scene(images: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    while True:
        canvas = np.zeros((50, 50))
        for _ in range(count):
            side = int(28 / rng.normal(1.3, 0.1))
            digit = Image.fromarray(images[rng.integers(len(images))])
            patch = np.asarray(digit.resize((side, side), Image.Resampling.BILINEAR))
            top, left = rng.integers(50 - side, size=2)
            canvas += np.pad(patch, ((top, 50 - side - top), (left, 50 - side - left)))
        if canvas.max() <= 255:
            return canvas


def ours(settings: dict[str, object], n: int, workers: int) -> float:
    """Return scenes a second of ``mobj generate`` into a new folder."""
    plan = Plan.create("multi-mnist", settings, splits={"train": n})
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        generate(plan, Path(folder), workers=workers)
        return n / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--digits-root", help="folder of MNIST; otherwise it is downloaded")
    parser.add_argument("--workers", type=int, default=(os.cpu_count() or 1) + 1)
    parser.add_argument("--scenes", type=int, default=300_000)
    arguments = parser.parse_args()
    digits = {"digits": "mnist", "digits_root": arguments.digits_root}
    images = load_digits("train", "mnist", arguments.digits_root).images
    rng = np.random.default_rng(0)
    print(f"{arguments.workers} workers, {arguments.scenes:,} scenes on disk; the peer has one process")
    for title, counts, overlap, sample in (
        ("0-2 digits, legacy rule", [0, 1, 2], {"overlap": False, "overlap_rule": "legacy"}, 4000),
        ("2 or 4 digits, exact", [2, 4], {"overlap": False}, 300),
    ):
        slow = peer(images, counts, sample, rng)
        settings = {"counts": ",".join(map(str, counts)), **overlap, **digits}
        fast, warm = (ours(settings, arguments.scenes, arguments.workers) for _ in range(2))
        print(f"{title}: {fast:,.0f} scenes/s against {slow:,.0f} scenes/s, ratio {fast / slow:.0f}")
        print(f"  by the same workers again, who know the resized digits: {warm:,.0f} scenes/s")


if __name__ == "__main__":
    main()
