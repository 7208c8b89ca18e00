"""Painting scenes on a device against painting them with NumPy, and whole streams, in the same run.

The painters get the same arrangements. `NumPy` is `Arrangement.paint`; `NumPy, uploaded` sends its arrays to the
device; `device` packs, uploads and paints there. A stream decides what is in the scenes as well.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from statistics import median

import torch

from multiobj_data.composition.arrangement import Arrangement
from multiobj_data.configuration import parse_assignments
from multiobj_data.generation.plan import Plan
from multiobj_data.generators.flat import FlatGenerator
from multiobj_data.loading import GeneratedScenes, batches
from multiobj_data.randomness import BLOCK, block_rng
from multiobj_data.tensors.datasets import TensorStream
from multiobj_data.tensors.drawing import painted, unpainted

BATCH = 256


def painters(blocks: list[Arrangement], device: torch.device) -> dict[str, Callable[[], None]]:
    def with_numpy() -> None:
        for block in blocks:
            block.paint()

    def uploaded() -> None:
        for block in blocks:
            painted(block.paint()).on(device)
        wait(device)

    def on_device() -> None:
        for block in blocks:
            unpainted(block).on(device)
        wait(device)

    return {"NumPy": with_numpy, "NumPy, uploaded": uploaded, "device": on_device}


def streams(plan: Plan, device: torch.device, workers: int, n: int) -> dict[str, Callable[[], None]]:
    """Return what takes ``n`` batches from each stream; they are warm, and go on from where they are."""
    on_device: Iterator[object] = iter(TensorStream(plan, batch_size=BATCH, device=device, workers=workers))
    with_numpy = batches(GeneratedScenes(plan, "train", length=10**9), BATCH)

    def take(source: Iterator[object]) -> None:
        for _ in itertools.islice(source, n):
            pass
        wait(device)

    for source in (with_numpy, on_device):
        take(source)
    return {
        "NumPy, one process": lambda: take(with_numpy),
        f"TensorStream, {workers} workers": lambda: take(on_device),
    }


def compare(contenders: dict[str, Callable[[], None]], scenes: int, turns: int) -> None:
    """Let them take turns, so that a busy machine slows all alike; print scenes a second."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(turns + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            if turn:  # the first one allocates
                seconds[name].append(time.perf_counter() - start)
    first = median(next(iter(seconds.values())))
    for name, times in seconds.items():
        print(f"  {name:24s} {scenes / median(times):12,.0f} scenes/s  {first / median(times):6.2f} x")


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("generator", nargs="?", default="multi-dsprites")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of it")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=16, help=f"of {BLOCK} scenes, in each turn")
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    plan = Plan.create(options.generator, parse_assignments(options.set), splits={"train": 1})
    if not isinstance(plan.generator, FlatGenerator):
        parser.error(f"{options.generator} paints as it goes: there is nothing to compare; take another.")
    device, n = torch.device(options.device), options.blocks
    name = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    )
    print(f"{options.generator} {' '.join(options.set)}: painting, device {device} ({name})")
    blocks = [
        plan.generator.arrange(block_rng(0, "train", i), BLOCK, split="train", first=i * BLOCK)
        for i in range(n)
    ]
    compare(painters(blocks, device), n * BLOCK, options.turns)
    print("whole streams, what is in the scenes decided as well")
    compare(streams(plan, device, options.workers, n), n * BATCH, options.turns)


if __name__ == "__main__":
    main()
