"""Who hides whom: which objects are there, in which order they lie, what is visible of each.

Objects are opaque. One that lies in front of others hides what its rectangle covers of them and of the
background (Stelzner et al. 2019, sec. 3.2). How well an object explains what is seen of it depends on the *set* of
objects in front of it, not on their order: a sum over all orders needs one evaluation for every object and set.

Letters: B images, K objects, S sets of objects that may be there, Q queries (an object with those in front of it),
A side of a patch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, combinations, permutations
from typing import NamedTuple

import torch
from torch import Tensor, nn

from reference_models.parts.objects.rectangles import Profiles, Sampling
from reference_models.parts.precision import full_precision

Objects = tuple[int, ...]
"""A set of objects, in rising order."""


def first_objects(k: int) -> list[Objects]:
    """Return the sets of the first n objects, n = 0..K."""
    return [tuple(range(n)) for n in range(k + 1)]


def any_objects(k: int) -> list[Objects]:
    """Return all sets of up to K objects, 2^K, small ones first."""
    return [each for n in range(k + 1) for each in combinations(range(k), n)]


class Query(NamedTuple):
    """An object, and the objects that lie in front of it."""

    item: int
    front: frozenset[int]


class Orders(nn.Module):
    """The orders, front to back, in which the objects that are there may lie, for each set of them.

    Args:
        sets: The sets of objects that may be there, e.g. `first_objects`; with a set, what remains of it without its
            last object, too.
        every: Whether all orders of a set occur, equally likely; otherwise each object lies behind those before it.

    Attributes:
        queries: The Q pairs of an object and those in front of it that occur in any order.
        members: Which objects are in which set, 0 or 1, ``[S, K]``.
        counts: How many objects each set has, int64 ``[S]``.
        alike: How many sets have as many, ``[S]``.
    """

    uses: Tensor
    depth: Tensor
    members: Tensor
    counts: Tensor
    alike: Tensor

    def __init__(self, sets: Sequence[Objects], every: bool) -> None:
        super().__init__()
        self.sets = list(sets)
        k = max(map(len, self.sets))
        by_set = [list(permutations(each)) if every else [each] for each in self.sets]
        orders = [order for group in by_set for order in group]
        queries = [[Query(item, frozenset(order[:i])) for i, item in enumerate(order)] for order in orders]
        self.queries = sorted(
            {query for group in queries for query in group},
            key=lambda query: (len(query.front), query.item, sorted(query.front)),
        )
        self.sizes = [len(group) for group in by_set]
        uses = torch.tensor([[query in group for query in self.queries] for group in queries])
        depth = torch.tensor([[*order, *(i for i in range(k) if i not in order)] for order in orders])
        members = torch.tensor([[i in each for i in range(k)] for each in self.sets])
        self.register_buffer("uses", uses.float(), persistent=False)  # [orders, Q]
        self.register_buffer("depth", depth, persistent=False)  # [orders, K], front to back
        counts = members.sum(-1)
        self.register_buffer("members", members.float(), persistent=False)
        self.register_buffer("counts", counts, persistent=False)
        self.register_buffer("alike", (counts == counts[:, None]).sum(-1).float(), persistent=False)

    @property
    def items(self) -> list[int]:
        """The object of each query."""
        return [query.item for query in self.queries]

    def posterior(self, values: Tensor) -> list[Tensor]:
        """Return log p(order | x, set) for each set, ``[B, orders of the set]``, exactly.

        Args:
            values: Log likelihood of what each query explains, ``[B, Q]``.
        """
        return [total.log_softmax(-1) for total in self._totals(values)]

    def evidence(self, values: Tensor) -> Tensor:
        """Return how well the objects of each set explain an image, all their orders summed over: nats, ``[B, S]``.

        Args:
            values: As `posterior`'s.
        """
        totals = self._totals(values)
        return torch.stack([each.logsumexp(-1) - math.log(each.shape[-1]) for each in totals], dim=-1)

    @full_precision
    def _totals(self, values: Tensor) -> tuple[Tensor, ...]:
        """Return the log likelihood of each order of each set."""
        return (values @ self.uses.to(values).mT).split(self.sizes, dim=-1)

    def shares(self, sets: Tensor, posterior: list[Tensor]) -> Tensor:
        """Return how probable it is that each query occurs: ``[B, Q]``.

        Args:
            sets: Probability of each set, ``[B, S]``.
            posterior: Of the orders, as from `posterior`.
        """
        joint = [q[:, None] * log_r.exp() for q, log_r in zip(sets.unbind(-1), posterior, strict=True)]
        return torch.cat(joint, dim=-1) @ self.uses.to(sets)

    def surprise(self, posterior: list[Tensor]) -> Tensor:
        """Return KL(p(order | x, set) || uniform) for each set: ``[B, S]``."""
        return torch.stack([(r.exp() * r).sum(-1) + math.log(r.shape[-1]) for r in posterior], dim=-1)

    def best(self, posterior: list[Tensor], chosen: Tensor) -> Tensor:
        """Return the most probable order, front to back, of the objects of one set an image: int64 ``[B, K]``.

        Objects that are not in the set lie behind, in their own order.

        Args:
            posterior: Of the orders, as from `posterior`.
            chosen: Place of the set among `sets`, int64 ``[B]``.
        """
        starts = accumulate(self.sizes[:-1], initial=0)
        places = [start + r.argmax(-1) for start, r in zip(starts, posterior, strict=True)]
        order: Tensor = self.depth[torch.stack(places, dim=-1).gather(-1, chosen[:, None])[:, 0]]
        return order


def visibility(queries: list[Query], sampling: Sampling, covering: Profiles) -> Tensor:
    """Return how far each sample of each query's object is seen: ``[B, Q, A, A]`` in [0, 1].

    A sample is seen as far as it lies on the canvas and nothing in front covers it.

    Args:
        queries: Of K objects.
        sampling: Where the objects' samples lie.
        covering: How far each object covers the samples of each, ``[B, K, K, A]`` on both axes.
    """
    seen: dict[Query, Tensor] = {}

    def look(i: int, front: frozenset[int]) -> Tensor:
        if (i, front) in seen:
            return seen[Query(i, front)]
        if not front:
            rows, columns = sampling.inside_rows[:, i], sampling.inside_columns[:, i]
            found = rows[:, :, None] * columns[:, None, :]
        else:
            j = max(front)
            covered = covering.rows[:, i, j, :, None] * covering.columns[:, i, j, None, :]
            behind_others = look(i, front - {j})
            found = torch.addcmul(behind_others, behind_others, covered, value=-1)
        seen[Query(i, front)] = found
        return found

    return torch.stack([look(*query) for query in queries], dim=1)


def uncovered(pixels: Tensor, sets: Sequence[Objects]) -> Tensor:
    """Return how far the background is seen past the objects of each set: ``[B, S, H, W]``.

    Args:
        pixels: How far each object covers each pixel, ``[B, K, H, W]``.
        sets: As those of `Orders`.
    """
    seen: dict[Objects, Tensor] = {(): torch.ones_like(pixels[:, 0])}
    for each in sets:
        if each:
            before = seen[each[:-1]]
            seen[each] = torch.addcmul(before, before, pixels[:, each[-1]], value=-1)
    return torch.stack([seen[each] for each in sets], dim=1)


def visible_parts(pixels: Tensor, order: Tensor) -> Tensor:
    """Return which share of each pixel shows the background and each object, summing to 1.

    Args:
        pixels: How far each object covers each pixel, ``[B, K, H, W]``; 0 for objects that are not there.
        order: The objects front to back, int64 ``[B, K]``.

    Returns:
        ``[B, 1 + K, H, W]``, the background first.
    """
    index = order[:, :, None, None]
    in_order = pixels.take_along_dim(index, dim=1)
    free = uncovered(in_order, first_objects(pixels.shape[1]))  # [B, K + 1, H, W]
    parts = (in_order * free[:, :-1]).take_along_dim(order.argsort(-1)[:, :, None, None], dim=1)
    return torch.cat([free[:, -1:], parts], dim=1)
