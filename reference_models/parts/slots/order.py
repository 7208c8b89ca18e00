"""Bring slots into the order of others: SRI's greedy matching (algorithm 1), for a whole batch at once."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def greedy_order(wanted: Tensor, found: Tensor) -> Tensor:
    """Return which of the found slots takes each wanted place: the nearest that is still free, place after place.

    Not the best assignment overall; the first places choose first.

    Args:
        wanted: ``[B, K, D]``.
        found: ``[B, K, D]``.

    Returns:
        int64 ``[B, K]``, a permutation of 0..K-1 in each row.
    """
    k = found.shape[1]
    cost = (wanted[:, :, None] - found[:, None]).square().sum(-1)  # [B, place, found]
    slots = torch.arange(k, device=found.device)
    order: list[Tensor] = []
    taken = torch.zeros_like(cost[:, 0], dtype=torch.bool)  # [B, found]
    for row in cost.unbind(1):
        order.append(row.masked_fill(taken, torch.inf).argmin(-1))
        taken = taken | (slots == order[-1][:, None])
    return torch.stack(order, dim=1)


def reordered(slots: Tensor, order: Tensor) -> Tensor:
    """Return ``slots [B, K, D]`` in the order ``[B, K]``."""
    return slots.gather(1, order[..., None].expand(-1, -1, slots.shape[-1]))
