"""Block streams: scene ``i`` of a split is the same for any worker count, shard size or resume.

Scenes are drawn in blocks of 256, so that drawing stays vectorised. Each block has a random stream of its
own, keyed by (seed, split, block number); nothing is global and no stream is ever shared.
"""

from __future__ import annotations

import hashlib

import numpy as np

BLOCK = 256
"""Scenes in a block. Part of every data set's definition: another value would give other scenes."""


def block_rng(seed: int, split: str, block: int) -> np.random.Generator:
    """Return the stream from which block ``block`` of ``split`` is drawn."""
    split_key = int.from_bytes(hashlib.sha256(split.encode()).digest()[:4], "little")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(split_key, block))))
