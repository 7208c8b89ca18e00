"""What a generation would write and how long it would take, from one block of scenes."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from multiobj_data.generators.base import call_optional
from multiobj_data.plan import Plan, draw_blocks
from multiobj_data.randomness import BLOCK
from multiobj_data.shards import encode_shard


@dataclass(frozen=True)
class Forecast:
    """An estimate.

    Attributes:
        splits: Split -> scenes.
        shards: Number of shards.
        bytes: Size of all shards.
        acceptance: Count -> share of candidate scenes that the overlap contract accepts.
        seconds: Wall-clock time.
        workers: Processes.
    """

    splits: dict[str, int]
    shards: int
    bytes: int
    acceptance: dict[int, float]
    seconds: float
    workers: int


def forecast(plan: Plan, workers: int) -> Forecast:
    """Estimate what `multiobj_data.generation.generate` would do.

    Raises:
        InfeasibleError: If the overlap contract cannot be met.
    """
    acceptance = call_optional(plan.generator, "acceptance", np.random.default_rng(0), default={})
    split = next(iter(plan.splits))
    draw_blocks(plan.generator, plan.seed, split, 0, BLOCK)  # warms up what is made once
    start = time.perf_counter()
    size = len(encode_shard(draw_blocks(plan.generator, plan.seed, split, BLOCK, BLOCK), {}))
    each = (time.perf_counter() - start) / BLOCK
    scenes = sum(plan.splits.values())
    shards = sum(1 for _ in plan.tasks())
    return Forecast(
        splits=dict(plan.splits),
        shards=shards,
        bytes=scenes * size // BLOCK,
        acceptance=acceptance,
        seconds=scenes * each / min(workers, shards),
        workers=workers,
    )
