"""One scene of a public set as its files hold it, before any filter, crop or resize of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Raw:
    """One source scene of N entities: the source's mask slots, background first, then objects.

    Not batched: a scene is 0.1 to 3 MB on the wire, so that the cost of one object more is small beside it.

    Attributes:
        image: uint8 ``[H, W, C]``.
        segments: uint8 ``[H, W]``, each pixel's entity, ``0 .. N - 1``.
        entities: N.
        background: How many leading entities are background.
        present: bool ``[N]``, which entities the source says are there, seen or not. A reader that crops tells it
            from before the crop.
        factors: Name -> ``[N, ...]``, one value an entity.
        scene_factors: Name -> one value.
        name: The file or recording, for messages.
        index: Which scene of it, from 0.
    """

    image: np.ndarray
    segments: np.ndarray
    entities: int
    background: int
    present: np.ndarray
    factors: Mapping[str, np.ndarray] = field(default_factory=dict)
    scene_factors: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    index: int = 0


def count_rows(masks: np.ndarray) -> np.ndarray:
    """Return how many rows masks, bool ``[B, H, W]``, have in each column: ``[B, W]``."""
    kind = np.uint8 if masks.shape[1] < 256 else np.uint16
    return np.add.reduce(masks.view(np.uint8), 1, dtype=kind)
