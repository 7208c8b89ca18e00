"""What a domain network learns to see: how many objects there are, and how many of each kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from multiobj_data.errors import DataError
from multiobj_data.scenes import Scenes

KINDS = ("class", "shape", "colour", "color", "material", "size", "stable")
"""Factors of objects that say what kind they are, rather than where."""

COUNT = "count"
_MOST_VALUES = 16  # more distinct values are a quantity


@dataclass(frozen=True)
class Targets:
    """What is predicted of each image.

    Attributes:
        most: Largest number that can be answered, K.
        values: Factor -> its values; one answer, 0..K objects, for each.
    """

    most: int
    values: Mapping[str, tuple[float, ...]]

    @classmethod
    def found_in(cls, parts: Iterable[Scenes]) -> Targets:
        """Return the kinds that training scenes tell apart.

        Raises:
            DataError: If there is nothing to learn: all scenes have the same number of objects of one kind.
        """
        seen: dict[str, set[float]] = {}
        counts: set[int] = set()
        for scenes in parts:
            counts |= set(scenes.count.tolist())
            for name in KINDS:
                codes = _codes(scenes, name)
                if codes is not None:
                    seen.setdefault(name, set()).update(np.unique(codes[scenes.present]).tolist())
        values = {
            name: tuple(sorted(found)) for name, found in seen.items() if 2 <= len(found) <= _MOST_VALUES
        }
        if not values and len(counts) < 2:
            raise DataError(
                "train-features: these scenes give nothing to learn: every one has the same number of objects, and no "
                f"factor ({', '.join(KINDS)}) has two values; take data with counts or kinds that vary."
            )
        return cls(max(counts, default=0), values)

    @property
    def heads(self) -> dict[str, int]:
        """Number of answers of each target, ``count`` first; each is one of 0..K."""
        return {COUNT: 1} | {name: len(values) for name, values in self.values.items()}

    def of(self, scenes: Scenes) -> np.ndarray:
        """Return the right answers, int64 ``[B, A]``, in the order of `heads`.

        Raises:
            DataError: If the scenes have no such factor, or more objects than those it was made for.
        """
        if len(scenes) and scenes.count.max() > self.most:
            raise DataError(
                f"train-features: expected at most {self.most} objects, got {scenes.count.max()}."
            )
        columns = [scenes.count[:, None]]
        for name, values in self.values.items():
            codes = _codes(scenes, name)
            if codes is None:
                raise DataError(
                    f"train-features: expected scenes with the factor {name!r}, got none in a split."
                )
            hits = (codes[:, :, None] == np.array(values)) & scenes.present[:, :, None]  # [B, K, V]
            columns.append(hits.sum(1))
        return np.concatenate(columns, 1).astype(np.int64)


def _codes(scenes: Scenes, name: str) -> np.ndarray | None:
    """Return a factor as one number an object, float64 ``[B, K]``; a colour is which of R, G, B are strong."""
    values = scenes.factors.get(name)
    if values is None:
        return None
    if values.ndim == 2 and values.dtype.kind in "iufb":
        return values.astype(np.float64)
    if values.ndim == 3 and values.shape[2] == 3 and values.dtype.kind == "f":
        return ((values > 0.5) * np.array([1, 2, 4])).sum(2).astype(np.float64)
    return None
