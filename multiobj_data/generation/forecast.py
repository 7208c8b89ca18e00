"""What a generation would write and how long it would take, from one block of scenes."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

import numpy as np

from multiobj_data.generation.plan import Plan, draw_blocks
from multiobj_data.generation.running import tasks_of
from multiobj_data.generators.base import call_optional
from multiobj_data.randomness import BLOCK
from multiobj_data.shards.hdf5 import encode_shard


@dataclass(frozen=True)
class Forecast:
    """An estimate.

    Attributes:
        splits: Split -> scenes, of the range asked for.
        shards: Number of its shards.
        bytes: Size of all of them.
        acceptance: Count -> share of candidate scenes that the overlap contract accepts.
        ood_acceptance: The same for the split ``ood``; empty if there is none.
        seconds: Wall-clock time.
        workers: Processes.
    """

    splits: dict[str, int]
    shards: int
    bytes: int
    acceptance: dict[int, float]
    ood_acceptance: dict[int, float]
    seconds: float
    workers: int


def forecast(plan: Plan, workers: int, shard_range: tuple[int, int] = (0, 1)) -> Forecast:
    """Estimate what `multiobj_data.generation.running.generate` would do with the same arguments.

    Raises:
        InfeasibleError: If the overlap contract cannot be met.
    """
    acceptance = call_optional(plan.generator, "acceptance", np.random.default_rng(0), default={})
    ood = call_optional(plan.generator, "ood_acceptance", np.random.default_rng(0), default={})
    split = next(iter(plan.splits))
    draw_blocks(plan.generator, plan.seed, split, 0, BLOCK)  # warms up what is made once
    start = time.perf_counter()
    size = len(encode_shard(draw_blocks(plan.generator, plan.seed, split, BLOCK, BLOCK), {}))
    each = (time.perf_counter() - start) / BLOCK
    splits, shards = Counter[str](), 0
    for task in tasks_of(plan, shard_range):
        splits[task.split] += task.rows
        shards += 1
    scenes = splits.total()
    return Forecast(
        splits=dict(splits),
        shards=shards,
        bytes=scenes * size // BLOCK,
        acceptance=acceptance,
        ood_acceptance=ood if "ood" in plan.splits else {},
        seconds=scenes * each / max(min(workers, shards), 1),  # of more ranges than shards, some are empty
        workers=workers,
    )
