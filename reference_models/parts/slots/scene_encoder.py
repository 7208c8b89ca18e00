"""From a set of slots to what they are together: q(s | z), blind to the slots' order (SRI, sec. 4.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from reference_models.parts.nets import mlp
from reference_models.parts.precision import full_precision
from reference_models.parts.slots.prior import softplus_normal


class RelationLayer(nn.Module):
    """Self-attention over slots whose values depend on the pair (SRI, eqs. 30 and 31).

    ``v_ij = W2 gelu(W1 [h_i; h_i - h_j])`` is W1 applied to i and j apart, and W2 to the weighted sum, as both are
    linear and the weights sum to 1: nothing but the gelu is computed for each pair.

    Args:
        size: D.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.pair = nn.Linear(2 * size, size)  # W1
        self.value = nn.Linear(size, size)  # W2
        self.query = nn.Linear(size, size, bias=False)
        self.key = nn.Linear(size, size, bias=False)
        self.norm = nn.LayerNorm(size)
        self.mlp = mlp(size, [size], size, nn.GELU)

    def forward(self, slots: Tensor) -> Tensor:
        """Return ``[B, K, D]`` for ``slots [B, K, D]``."""
        weight, own = self.pair.weight.split(self.size, dim=1)
        of_i = nn.functional.linear(slots, weight + own, self.pair.bias)  # [B, K, D]
        of_j = nn.functional.linear(slots, own)
        pairs = nn.functional.gelu(of_i[:, :, None] - of_j[:, None])  # [B, i, j, D]
        scores = self.query(slots) @ self.key(slots).mT * self.size**-0.5
        attended = (scores.softmax(-1)[..., None] * pairs).sum(2)
        update: Tensor = self.mlp(self.norm(slots + self.value(attended)))
        return slots + update


class SceneEncoder(nn.Module):
    """q(s | z_1, ..., z_K).

    The slots are summed up: with another K than in training, s may be off.

    Args:
        slot_size: D.
        scene_size: Size of s.
        layers: Rounds of relations.
    """

    def __init__(self, slot_size: int, scene_size: int, layers: int) -> None:
        super().__init__()
        self.relate = nn.Sequential(*(RelationLayer(slot_size) for _ in range(layers)))
        self.pool = nn.Sequential(nn.Linear(slot_size, scene_size), nn.GELU())
        self.loc = nn.Linear(scene_size, scene_size)
        self.raw_scale = nn.Linear(scene_size, scene_size)

    @full_precision
    def forward(self, slots: Tensor) -> Independent:
        """Return the diagonal normal with batch ``[B]`` for ``slots [B, K, D]``."""
        pooled = self.pool(self.relate(slots).sum(1))
        return softplus_normal(torch.cat([self.loc(pooled), self.raw_scale(pooled)], dim=-1))
