"""How many objects a scene holds: ``2,4`` (equal shares), ``0-2``, or weights such as ``1:3,2:1``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from multiobj_data.errors import UsageError, quoted

_MOST = 200
_LARGEST_WEIGHT = 10**12
_CYCLE_LIMIT = 128  # half a block: longer cycles would leave too few whole ones inside a block


def weighted(weights: Mapping[int, float]) -> str:
    """Return the text of a distribution: count -> weight."""
    return ",".join(f"{count}:{np.format_float_positional(weight)}" for count, weight in weights.items())


@dataclass(frozen=True)
class Counts:
    """A distribution over the number of objects, written as text.

    With equal shares or whole-number weights, every cycle of as many scenes as the weights' sum, divided by what all
    have in common, holds each count exactly as often as its weight says, in random order, so that shares over a split
    are exact (to within one cycle). With fractional weights, and those whose cycle is longer than 128 scenes, counts
    are drawn independently.

    Args:
        text: Comma-separated counts (``"2,4"``), ranges (``"0-2"``), each with an optional ``:weight``.
    """

    text: str

    def __post_init__(self) -> None:
        self.weights  # noqa: B018  # parse now, so that a malformed text fails here

    @property
    def weights(self) -> dict[int, float]:
        """Count -> weight, in increasing order of count."""
        weights: dict[int, float] = {}
        for part in self.text.split(","):
            match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?(?::(\d+(?:\.\d*)?|\.\d+))?\s*", part)
            if match is None:
                raise UsageError(
                    f"counts: expected whole numbers such as '2,4', '0-2' or '1:3,2:1', got "
                    f"{quoted(self.text)} (the part {quoted(part)} is none)."
                )
            low, high = int(match[1]), int(match[2] or match[1])
            weight = float(match[3]) if match[3] else 1.0
            if high < low or not 0 < weight <= _LARGEST_WEIGHT:
                raise UsageError(
                    f"counts: {quoted(part)} is an empty range, or its weight is 0 or above {_LARGEST_WEIGHT:,}; write "
                    "e.g. '1-3:2'."
                )
            if high > _MOST:  # before every number up to it is listed
                raise UsageError(f"counts: at most {_MOST} objects a scene, got {quoted(part)}.")
            for count in range(low, high + 1):
                if count in weights:
                    raise UsageError(
                        f"counts: {count} is given twice in {quoted(self.text)}; give each count once."
                    )
                weights[count] = weight
        return dict(sorted(weights.items()))

    @property
    def largest(self) -> int:
        """The largest count, i.e. K."""
        return max(self.weights)

    def without(self, count: int) -> Counts:
        """Return the distribution in which one count does not occur.

        Raises:
            UsageError: If nothing is left.
        """
        left = {n: weight for n, weight in self.weights.items() if n != count}
        if not left:
            raise UsageError(
                f"counts: {quoted(self.text)} holds no other number than {count}; give others as well."
            )
        return Counts(weighted(left))

    def _cycle(self) -> np.ndarray | None:
        weights = self.weights
        if any(w != int(w) for w in weights.values()):
            return None
        divisor = math.gcd(*(int(w) for w in weights.values()))
        times = [int(w) // divisor for w in weights.values()]
        return np.repeat(list(weights), times) if sum(times) <= _CYCLE_LIMIT else None

    def draw(self, rng: np.random.Generator, n: int, first: int) -> np.ndarray:
        """Return the counts of scenes ``first .. first + n - 1`` as int64 ``[n]``.

        Cycles that lie within the request are shuffled by ``rng``. A cycle that crosses its border must
        come out alike on both sides, so its order is keyed by its own number instead: it is the same for all seeds
        and splits.
        """
        cycle = self._cycle()
        if cycle is None:
            p = np.array(list(self.weights.values()))
            return rng.choice(np.array(list(self.weights)), size=n, p=p / p.sum())
        length = len(cycle)
        start, stop = first // length, -(-(first + n) // length)
        order = rng.permuted(np.tile(cycle, (stop - start, 1)), axis=1)
        for number in (start, stop - 1):
            if number * length < first or (number + 1) * length > first + n:
                order[number - start] = np.random.default_rng(number).permutation(cycle)
        return order.reshape(-1)[first - start * length :][:n]
