"""A training step of several seeds of AIR, together beside one after the other, in the same process.

    python benchmarks/seeds_together.py [--seeds 3] [--model air] [--set key=value] [--batch-size 64] [--threads 1]
                                        [--turns 8] [--device cpu]

Together: weights stacked, one forward and one backward pass for all (`mobj train --together`). One after the
other: what `mobj train` does without it. Both train on the same images, clip, and step Adam.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from multiobj_data.configuration import parse_assignments
from reference_models.batches import Batches
from reference_models.runs import Run
from reference_models.stacking import Stack
from reference_models.training import open_run

TURN = 4
"""Steps of one way before it is the other's turn."""


class Images:
    """Grey images, of noise."""

    image_shape = (50, 50, 1)
    reference: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, n: int) -> None:
        self.image = np.random.default_rng(0).integers(0, 256, (n, *self.image_shape), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.image)

    def images(self, indices: np.ndarray) -> np.ndarray:
        """Return the images of these indices."""
        return self.image[indices]


def runs_of(options: argparse.Namespace, folder: Path, opened: ExitStack) -> list[Run]:
    batches = Batches(Images(4096), options.batch_size, 0, torch.device(options.device))
    config = parse_assignments(options.set)
    return [
        opened.enter_context(
            open_run(options.model, batches.of_seed(seed), folder, config, None, resume=False)
        )
        for seed in range(options.seeds)
    ]


def measure(ways: dict[str, Callable[[], Any]], turns: int, device: str) -> dict[str, float]:
    """Return the median seconds of a step of all seeds; the ways take turns, the first step of each is left out."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, step in ways.items():
            seconds = [timed(step, device) for _ in range(TURN)]
            if turn > 0:  # the first one allocates
                times[name] += seconds[1:]
    return {name: median(values) for name, values in times.items()}


def timed(step: Callable[[], Any], device: str) -> float:
    start = time.perf_counter()
    step()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model", default="air")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        in_turn = runs_of(options, Path(folder) / "in-turn", opened)
        together = Stack(runs_of(options, Path(folder) / "together", opened))
        ways = {
            "one after the other": lambda: [run.advance() for run in in_turn],
            "together": together.advance,
        }
        medians = measure(ways, options.turns, options.device)
    slowest = medians["one after the other"]
    for name, seconds in medians.items():
        rate = options.seeds / seconds
        print(
            f"{name:20s} {1e3 * seconds:7.1f} ms for a step of {options.seeds} seeds  {rate:6.1f} steps/s "
            f"{slowest / seconds:5.2f} x"
        )


if __name__ == "__main__":
    main()
