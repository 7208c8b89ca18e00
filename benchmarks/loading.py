"""Shuffled batches from shards against indexing an array in memory, in the same run."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from multiobj_data.loading import open_dataset


def microseconds(read: Callable[[np.ndarray], np.ndarray], order: np.ndarray, batch: int) -> float:
    """Return the mean time of a batch."""
    starts = range(0, len(order) - batch + 1, batch)
    begin = time.perf_counter()
    for start in starts:
        read(order[start : start + batch])
    return 1e6 * (time.perf_counter() - begin) / len(starts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", help="folder written by mobj generate")
    parser.add_argument("--split", default="train")
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    source = open_dataset(arguments.dataset, arguments.split)
    array = source.images(np.arange(len(source)))
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(7):  # alternately, so that both meet the same machine
        order = rng.permutation(len(source))
        memory = microseconds(lambda index: array[index], order, arguments.batch)
        pairs.append((memory, microseconds(source.images, order, arguments.batch)))
    memory, shards = np.median(pairs, axis=0)
    print(f"{len(source):,} images of {source.image_shape}, batches of {arguments.batch}, shuffled")
    print(f"array in memory {memory:.0f} us, shards {shards:.0f} us: {memory / shards:.2f} of its speed")


if __name__ == "__main__":
    main()
