"""Where objects go: drawn from their law, whole scenes rejected, in batches, within a bound.

A scene's objects are drawn one after another and tested as they come; a scene that fails is thrown away
*whole* and drawn anew, so that accepted scenes follow the law of the objects given the rules. (Redrawing only
the last object would favour crowded layouts.) Stopping a candidate at its first failing object changes nothing:
it would have been rejected anyway.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from multiobj_data.composition.overlap import Overlap, Placed
from multiobj_data.errors import InfeasibleError
from multiobj_data.factors.laws import Condition
from multiobj_data.sprites.bank import Sprites

MIN_ACCEPTANCE = 1e-5
"""Requests of which fewer candidates than this would be accepted are refused."""

_BATCH = (256, 32768)  # fewest and most candidates at a time: their numbers fit into the cache
_DRAWN = 512  # scenes of which objects are drawn at a time
_PROBE = (200, 4000)  # fewest and most candidates in a feasibility estimate: fewer of large objects
_SOME = 20  # hits from which a share is known well enough
_MANY = 40_000  # single objects proposed at a time, for rare ones


class Proposal(Protocol):
    """One proposed object in each of N candidate scenes: drawn already (`Placed`), or only described."""

    @property
    def table(self) -> Mapping[str, np.ndarray]:
        """What the law drew: name -> ``[M, ...]``."""

    @property
    def row(self) -> np.ndarray:
        """Each object's row of the table, int64 ``[N]``."""

    def __len__(self) -> int: ...

    def __getitem__(self, keep: np.ndarray | slice) -> Proposal:
        """Return those of some scenes."""
        ...

    def values(self, name: str) -> np.ndarray:
        """Return a factor of each object, ``[N, ...]``."""
        ...

    def rejected(self, earlier: Sequence[Any], overlap: Overlap) -> np.ndarray:
        """Return bool ``[N]``: scenes that break the contract for certain; for a `Placed`, exactly those."""
        ...

    def settle(self, rng: np.random.Generator) -> Placed:
        """Draw the pixels, and from ``rng`` the factors that no rule (and no hold-out) asks for."""
        ...


class Source(Protocol):
    """Where objects come from: their law, their pixels, what is stored of them."""

    def propose(self, rng: np.random.Generator, n: int) -> Proposal:
        """Propose an object and its place in each of ``n`` scenes."""
        ...

    def nothing(self) -> Placed:
        """Return the objects of no scene."""
        ...

    def factors(self, placed: Placed) -> dict[str, np.ndarray]:
        """Return what is stored of each object: name -> ``[N, ...]``."""
        ...

    def colour(self, placed: Placed) -> np.ndarray | None:
        """Return float32 ``[N, C]`` in [0, 1]; ``None`` paints sprites as they are."""
        ...


@dataclass(frozen=True)
class Rules:
    """What a scene must keep to, besides the law of its objects.

    Attributes:
        overlap: The contract; ``None`` lets objects overlap freely.
        distinct: Factors in which no two objects of a scene may be equal.
        include: At least one object must be of these.
    """

    overlap: Overlap | None = None
    distinct: tuple[str, ...] = ()
    include: Condition | None = None

    def never_reject(self, count: int) -> bool:
        """Whether every candidate is a scene."""
        return self.include is None and (count < 2 or not (self.overlap or self.distinct))

    def reject(self, earlier: Sequence[Proposal], new: Proposal) -> np.ndarray:
        """Return bool ``[N]``: which scenes break a rule (for certain) once ``new`` joins the others."""
        bad = np.zeros(len(new), bool) if self.overlap is None else new.rejected(earlier, self.overlap)
        for name in self.distinct:
            for other in earlier:
                same = new.values(name) == other.values(name)  # [N, ...]
                bad |= same.all(tuple(range(1, same.ndim)))
        return bad


@dataclass(frozen=True)
class Layouts:
    """N accepted layouts of k objects.

    Attributes:
        objects: One `Placed` an object, each over the N layouts, in drawing order (the last one is in front).
        attempts: int64 ``[N]``, how many candidates were tried for each layout.
    """

    objects: list[Placed]
    attempts: np.ndarray


def place(
    rng: np.random.Generator,
    sprites: Sprites,
    index: np.ndarray,
    canvas: int,
    table: Mapping[str, np.ndarray] | None = None,
) -> Placed:
    """Put each sprite's patch anywhere inside the frame, uniformly over whole pixels."""
    free = canvas - sprites.side[index] + 1
    corner = (rng.random((2, len(index))) * free).astype(np.int32)  # top left of the patch
    ink = sprites.ink_box[index]
    box = ink + np.concatenate([corner, corner]).T
    return Placed(sprites, index, box[:, 0], box[:, 1], np.arange(len(index)), table or {}, box)


def lay_out(rng: np.random.Generator, source: Source, count: int, rules: Rules, n: int) -> Layouts:
    """Draw ``n`` layouts of ``count`` objects each.

    Args:
        rng: Random stream.
        source: Proposes objects.
        count: Objects a layout.
        rules: What is rejected.
        n: How many.

    Raises:
        InfeasibleError: If 10 / `MIN_ACCEPTANCE` candidates a layout were not enough.
    """
    parts: list[list[Placed]] = []
    numbers: list[np.ndarray] = []
    found = tried = 0
    acceptance = 1.0
    while found < n:
        free = rules.never_reject(count)
        batch = n - found if free else int(np.clip(1.1 * (n - found) / acceptance, *_BATCH))
        for objects, accepted in _candidates(rng, source, count, rules, batch):
            parts.append(objects)
            numbers.append(tried + accepted)
            found += len(accepted)
            if found >= n:
                break  # the rest need not even be drawn
        tried += batch
        acceptance = max(found, 1) / tried
        if found < n and tried > 10 * n / MIN_ACCEPTANCE:
            raise InfeasibleError(
                f"{count} objects: {tried:,} candidates gave only {found} of {n} valid layouts; "
                "ask for fewer or smaller objects, a larger canvas or a milder overlap rule."
            )
    accepted = np.concatenate(numbers)[:n] if numbers else np.zeros(0, np.int64)
    return Layouts(_join(parts, count, n), np.diff(accepted, prepend=-1))


def _candidates(
    rng: np.random.Generator, source: Source, count: int, rules: Rules, n: int
) -> Iterator[tuple[list[Placed], np.ndarray]]:
    """Try ``n`` candidates; yield the accepted ones' objects and their numbers ``0 .. n - 1``, in parts."""
    proposals: list[Proposal] = []
    alive = np.arange(n)
    for _ in range(count):
        proposals.append(source.propose(rng, len(alive)))
        keep = _survivors(rules, proposals)
        alive, proposals = alive[keep], [proposal[keep] for proposal in proposals]
    if rules.include is not None:  # before anything is drawn: what is wanted may be rare
        keep = np.flatnonzero(_includes(proposals, rules.include, len(alive)))
        alive, proposals = alive[keep], [proposal[keep] for proposal in proposals]
    for start in range(0, max(len(alive), 1), _DRAWN):
        part = slice(start, start + _DRAWN)
        yield _settle(rng, rules, [proposal[part] for proposal in proposals], alive[part])


def _settle(
    rng: np.random.Generator, rules: Rules, proposals: list[Proposal], alive: np.ndarray
) -> tuple[list[Placed], np.ndarray]:
    """Draw what was proposed and test it anew; return the objects of those accepted, and which these are."""
    objects: list[Placed] = []
    for number in range(len(proposals)):
        objects.append(proposals[number].settle(rng))
        if objects[-1] is not proposals[number]:  # it was only described: now its pixels are known
            keep = _survivors(rules, objects)
            alive, objects = alive[keep], [placed[keep] for placed in objects]
            proposals = [proposal[keep] for proposal in proposals]
    return objects, alive


def _survivors(rules: Rules, objects: Sequence[Proposal]) -> np.ndarray | slice:
    """Return the scenes that are left once the last of these objects has joined the others."""
    if rules.never_reject(len(objects)) or len(objects) < 2:
        return slice(None)
    return np.flatnonzero(~rules.reject(objects[:-1], objects[-1]))


def _includes(objects: Sequence[Proposal], wanted: Condition, n: int) -> np.ndarray:
    """Return bool ``[n]``: which scenes hold an object of the wanted ones."""
    found = np.zeros(n, bool)
    for placed in objects:
        found |= wanted.contains({name: values[placed.row] for name, values in placed.table.items()})
    return found


def _join(parts: list[list[Placed]], count: int, n: int) -> list[Placed]:
    if len(parts) == 1:
        return [placed[np.arange(n)] for placed in parts[0]]
    return [Placed.concatenate([part[k] for part in parts])[np.arange(n)] for k in range(count)]


def estimate_acceptance(rng: np.random.Generator, source: Source, count: int, rules: Rules) -> float:
    """Estimate which share of candidate layouts the rules accept, however small.

    Objects join one by one; after each, the share of survivors is noted and the survivors are resampled to
    the full number (multilevel splitting), so that a share of 1e-9 costs no more than one of 0.1.
    """
    side = source.nothing().sprites.tile.shape[1]
    n = int(np.clip(_PROBE[1] * 64**2 / side**2, *_PROBE))
    acceptance = 1.0
    objects: list[Placed] = []
    for _ in range(count):
        objects.append(source.propose(rng, n).settle(rng))
        keep = _survivors(rules, objects)
        if isinstance(keep, np.ndarray):
            acceptance *= len(keep) / n
            if not len(keep):
                return 0.0
            keep = keep[rng.integers(len(keep), size=n)]
            objects = [placed[keep] for placed in objects]
    if rules.include is not None and count:
        share = float(_includes(objects, rules.include, n).mean())
        acceptance *= share if share > _SOME / n else _rare_share(rng, source, count, rules.include)
    return acceptance


def _rare_share(rng: np.random.Generator, source: Source, count: int, wanted: Condition) -> float:
    """Estimate the share of scenes that hold an object of the wanted ones, from single, undrawn objects."""
    tried = found = 0
    while found < _SOME and tried < 10 / MIN_ACCEPTANCE:
        found += int(_includes([source.propose(rng, _MANY)], wanted, _MANY).sum())
        tried += _MANY
    return 1 - (1 - found / tried) ** count
