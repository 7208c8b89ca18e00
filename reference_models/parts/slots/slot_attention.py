"""Slot Attention (Locatello et al., 2020), with shared or with learnt first slots (SRI, sec. 5.2: SRI-SA*)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from reference_models.parts.nets import mlp
from reference_models.parts.precision import full_precision

First = Literal["per-slot", "shared"]


class SlotAttention(nn.Module):
    """Features of pixels -> slots that compete for them, round after round.

    Args:
        features: Size of a pixel's features.
        size: D.
        slots: K, where the first slots are learnt one by one.
        first: Whether each slot begins at a normal of its own (SRI-SA*) or all at the same (Slot Attention).
        rounds: Of attention.
    """

    def __init__(self, features: int, size: int, slots: int, first: First, rounds: int = 3) -> None:
        super().__init__()
        self.size, self.rounds = size, rounds
        rows = slots if first == "per-slot" else 1
        self.first_loc = nn.Parameter(torch.empty(rows, size))
        self.first_log_scale = nn.Parameter(torch.empty(rows, size))
        for start in (self.first_loc, self.first_log_scale):
            if first == "per-slot":
                nn.init.kaiming_uniform_(start[None])  # SRI code: of [1, K, D], a fan of K D
            else:
                nn.init.xavier_uniform_(start)
        self.norm_features = nn.LayerNorm(features)
        self.norm_slots = nn.LayerNorm(size)
        self.norm_update = nn.LayerNorm(size)
        self.key = nn.Linear(features, size, bias=False)
        self.value = nn.Linear(features, size, bias=False)
        self.query = nn.Linear(size, size, bias=False)
        self.gru = nn.GRUCell(size, size)
        self.mlp = mlp(size, [2 * size], size)

    @full_precision
    def forward(self, features: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return slots ``[B, K, D]`` and the log masks ``[B, K, P]`` of the last round.

        Args:
            features: ``[B, P, features]``.
            noise: Standard normal ``[B, K, D]``; with slots that begin at their own normals, K is theirs.
        """
        features = self.norm_features(features)
        keys, values = self.key(features), self.value(features)  # [B, P, D]
        slots = self.first_loc + self.first_log_scale.exp() * noise
        log_masks = slots.new_zeros(())
        for _ in range(self.rounds):
            queries = self.query(self.norm_slots(slots)) * self.size**-0.5
            log_masks = (queries @ keys.mT).log_softmax(1)  # [B, K, P]: slots compete
            masks = log_masks.exp() + 1e-8
            updates = (masks / masks.sum(-1, keepdim=True)) @ values  # [B, K, D]
            slots = self.gru(updates.flatten(0, 1), slots.flatten(0, 1)).unflatten(0, slots.shape[:2])
            slots = slots + self.mlp(self.norm_update(slots))
        return slots, log_masks
