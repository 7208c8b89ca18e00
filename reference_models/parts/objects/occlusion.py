"""Who hides whom: orders of the objects, what is visible of each, and the sum over orders.

Objects are opaque. One that lies in front of others hides what its rectangle covers of them and of the
background (Stelzner et al. 2019, sec. 3.2). How well an object explains what is seen of it depends on the *set* of
objects in front of it, not on their order: a sum over all orders needs one evaluation for every object and set.

Letters: B images, K objects, Q queries (an object with those in front of it), A side of a patch.
"""

from __future__ import annotations

import math
from itertools import accumulate, permutations
from typing import NamedTuple

import torch
from torch import Tensor, nn

from reference_models.parts.objects.rectangles import Profiles, Sampling


class Query(NamedTuple):
    """An object, and the objects that lie in front of it."""

    item: int
    front: frozenset[int]


class Orders(nn.Module):
    """The orders, front to back, in which the first n of up to K objects may lie, n = 0..K.

    Args:
        k: K.
        every: Whether all n! orders occur, equally likely; otherwise each object lies behind those before it.

    Attributes:
        queries: The Q pairs of an object and those in front of it that occur in any order.
    """

    uses: Tensor
    depth: Tensor

    def __init__(self, k: int, every: bool) -> None:
        super().__init__()
        by_count = [list(permutations(range(n))) if every else [tuple(range(n))] for n in range(k + 1)]
        orders = [order for group in by_count for order in group]
        queries = [[Query(item, frozenset(order[:i])) for i, item in enumerate(order)] for order in orders]
        self.queries = sorted(
            {query for group in queries for query in group}, key=lambda query: (len(query.front), query.item)
        )
        self.sizes = [len(group) for group in by_count]
        uses = torch.tensor([[query in group for query in self.queries] for group in queries])
        depth = torch.tensor([[*order, *range(len(order), k)] for order in orders], dtype=torch.long)
        self.register_buffer("uses", uses.float(), persistent=False)  # [orders, Q]
        self.register_buffer("depth", depth.reshape(-1, k), persistent=False)  # [orders, K], front to back

    @property
    def items(self) -> list[int]:
        """The object of each query."""
        return [query.item for query in self.queries]

    def posterior(self, values: Tensor) -> list[Tensor]:
        """Return log p(order | x, n) for each n = 0..K, ``[B, orders of n]``, exactly.

        Args:
            values: Log likelihood of what each query explains, ``[B, Q]``.
        """
        return [total.log_softmax(-1) for total in self._totals(values)]

    def evidence(self, values: Tensor) -> Tensor:
        """Return how well the first n objects explain an image, n = 0..K, all orders of n summed over: ``[B, K + 1]``.

        Args:
            values: As `posterior`'s.
        """
        return torch.stack(
            [total.logsumexp(-1) - math.log(total.shape[-1]) for total in self._totals(values)], dim=-1
        )

    def _totals(self, values: Tensor) -> tuple[Tensor, ...]:
        """Return the log likelihood of each order of n objects, n = 0..K."""
        return (values @ self.uses.to(values).mT).split(self.sizes, dim=-1)

    def shares(self, counts: Tensor, posterior: list[Tensor]) -> Tensor:
        """Return how probable it is that each query occurs: ``[B, Q]``.

        Args:
            counts: q(n), ``[B, K + 1]``.
            posterior: Of the orders, as from `posterior`.
        """
        joint = [q[:, None] * log_r.exp() for q, log_r in zip(counts.unbind(-1), posterior, strict=True)]
        return torch.cat(joint, dim=-1) @ self.uses.to(counts)

    def surprise(self, posterior: list[Tensor]) -> Tensor:
        """Return KL(p(order | x, n) || uniform) for each n: ``[B, K + 1]``."""
        return torch.stack([(r.exp() * r).sum(-1) + math.log(r.shape[-1]) for r in posterior], dim=-1)

    def best(self, posterior: list[Tensor], count: Tensor) -> Tensor:
        """Return the most probable order of ``count [B]`` objects, front to back, int64 ``[B, K]``.

        Objects beyond the count lie behind, in their own order.
        """
        starts = accumulate(self.sizes[:-1], initial=0)
        places = [start + r.argmax(-1) for start, r in zip(starts, posterior, strict=True)]
        chosen: Tensor = self.depth[torch.stack(places, dim=-1).gather(-1, count[:, None])[:, 0]]
        return chosen


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


def uncovered(pixels: Tensor) -> Tensor:
    """Return how far the background is seen past the first n objects, n = 0..K: ``[B, K + 1, H, W]``.

    Args:
        pixels: How far each object covers each pixel, ``[B, K, H, W]``.
    """
    free = accumulate(
        pixels.unbind(1),
        lambda seen, m: torch.addcmul(seen, seen, m, value=-1),
        initial=torch.ones_like(pixels[:, 0]),
    )
    return torch.stack(list(free), dim=1)


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
    free = uncovered(in_order)  # [B, K + 1, H, W]
    parts = (in_order * free[:, :-1]).take_along_dim(order.argsort(-1)[:, :, None, None], dim=1)
    return torch.cat([free[:, -1:], parts], dim=1)
