"""One-to-one assignment of slots to objects, shared by all metrics that need one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Matching(NamedTuple):
    """Which slot each object was given, and what that pair scores."""

    slot: np.ndarray
    """int64 ``[B, K]``, -1 for an object left without a slot."""
    score: np.ndarray
    """float64 ``[B, K]``, 0 for an object left without a slot."""


def match(scores: np.ndarray) -> Matching:
    """Assign slots to objects, one to one, so that the summed score is the largest possible.

    Solved per image by SciPy's ``linear_sum_assignment``: a few microseconds each at these sizes, which the
    batched computation of ``scores`` dwarfs.

    Args:
        scores: Floats ``[B, K, S]``, higher is better; finite.

    Raises:
        ValueError: If a score is not finite.
    """
    from scipy.optimize import linear_sum_assignment

    if not np.isfinite(scores).all():
        raise ValueError("match: expected finite scores, got NaN or infinity.")
    slot = np.full(scores.shape[:2], -1, dtype=np.int64)  # [B, K]
    score = np.zeros(scores.shape[:2])  # [B, K]
    for image, table in enumerate(scores):
        objects, slots = linear_sum_assignment(table, maximize=True)
        slot[image, objects] = slots
        score[image, objects] = table[objects, slots]
    return Matching(slot, score)
