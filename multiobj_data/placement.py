"""Where objects go: drawn uniformly, whole scenes rejected, in batches, within a bound.

A scene's objects are drawn one after another and tested as they come; a scene that fails is thrown away
*whole* and drawn anew, so that accepted scenes are uniform over the valid ones. (Redrawing only the last
object would favour crowded layouts.) Stopping a candidate at its first failing object changes nothing: it
would have been rejected anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from multiobj_data.errors import InfeasibleError
from multiobj_data.overlap import Overlap, Placed
from multiobj_data.sprites.bank import Sprites

MIN_ACCEPTANCE = 1e-5
"""Requests of which fewer candidates than this would be accepted are refused."""

_BATCH = (256, 4096)  # fewest and most candidates at a time
_PROBE = 4000  # candidates in a feasibility estimate

Draw = Callable[[np.random.Generator, int], tuple[Sprites, np.ndarray]]
"""``draw(rng, n)`` returns sprites and the indices ``[n]`` of those drawn."""


@dataclass(frozen=True)
class Layouts:
    """N accepted layouts of k objects.

    Attributes:
        objects: One `Placed` an object, each over the N layouts, in drawing order (the last one is in front).
        attempts: int64 ``[N]``, how many candidates were tried for each layout.
    """

    objects: list[Placed]
    attempts: np.ndarray


def place(rng: np.random.Generator, sprites: Sprites, index: np.ndarray, canvas: int) -> Placed:
    """Put each sprite's patch anywhere inside the frame, uniformly over whole pixels."""
    free = canvas - sprites.side[index] + 1
    corner = (rng.random((2, len(index))) * free).astype(np.int32)  # top left of the patch
    ink = sprites.ink_box[index]
    box = ink + np.concatenate([corner, corner]).T
    return Placed(sprites, index, box[:, 0], box[:, 1], box)


def _candidates(
    rng: np.random.Generator, draw: Draw, count: int, canvas: int, overlap: Overlap | None, n: int
) -> tuple[list[Placed], np.ndarray]:
    """Try ``n`` candidates; return the accepted ones' objects and their numbers ``0 .. n - 1``."""
    objects: list[Placed] = []
    alive = np.arange(n)
    for _ in range(count):
        new = place(rng, *draw(rng, len(alive)), canvas)
        if overlap is not None and objects:
            keep = np.flatnonzero(~overlap.rejects(objects, new))
            alive, new = alive[keep], new[keep]
            objects = [placed[keep] for placed in objects]
        objects.append(new)
    return objects, alive


def lay_out(
    rng: np.random.Generator, draw: Draw, count: int, canvas: int, overlap: Overlap | None, n: int
) -> Layouts:
    """Draw ``n`` layouts of ``count`` objects each.

    Args:
        rng: Random stream.
        draw: Draws sprites.
        count: Objects a layout.
        canvas: Side of the frame in pixels.
        overlap: The contract, or ``None`` to let objects overlap freely.
        n: How many.

    Raises:
        InfeasibleError: If 10 / `MIN_ACCEPTANCE` candidates a layout were not enough.
    """
    parts: list[list[Placed]] = []
    numbers: list[np.ndarray] = []
    found = tried = 0
    acceptance = 1.0
    while found < n:
        batch = int(np.clip(1.1 * (n - found) / acceptance, *_BATCH)) if count > 1 and overlap else n - found
        objects, accepted = _candidates(rng, draw, count, canvas, overlap, batch)
        parts.append(objects)
        numbers.append(tried + accepted)
        tried += batch
        found += len(accepted)
        acceptance = max(found, 1) / tried
        if tried > 10 * n / MIN_ACCEPTANCE:
            raise InfeasibleError(
                f"{count} objects: {tried:,} candidates gave only {found} of {n} valid layouts; "
                "ask for fewer or smaller objects, a larger canvas or a milder overlap rule."
            )
    accepted = np.concatenate(numbers)[:n]
    return Layouts(_join(parts, count, n), np.diff(accepted, prepend=-1))


def _join(parts: list[list[Placed]], count: int, n: int) -> list[Placed]:
    if len(parts) == 1:
        return [placed[np.arange(n)] for placed in parts[0]]
    return [Placed.concatenate([part[k] for part in parts])[np.arange(n)] for k in range(count)]


def estimate_acceptance(
    rng: np.random.Generator, draw: Draw, count: int, canvas: int, overlap: Overlap | None
) -> float:
    """Estimate which share of candidate layouts the contract accepts, however small.

    Objects join one by one; after each, the share of survivors is noted and the survivors are resampled to
    the full number (multilevel splitting), so that a share of 1e-9 costs no more than one of 0.1.
    """
    if overlap is None or count < 2:
        return 1.0
    acceptance = 1.0
    objects: list[Placed] = []
    for _ in range(count):
        new = place(rng, *draw(rng, _PROBE), canvas)
        if objects:
            keep = np.flatnonzero(~overlap.rejects(objects, new))
            acceptance *= len(keep) / _PROBE
            if not len(keep):
                return 0.0
            keep = keep[rng.integers(len(keep), size=_PROBE)]
            objects, new = [placed[keep] for placed in objects], new[keep]
        objects.append(new)
    return acceptance
