"""Iterative refinement: a recurrent network that improves a posterior from the loss' gradient.

Amortised inference guesses the posterior from the image alone. Looking at how the loss would fall, a learned
optimiser corrects the guess in a few steps (Marino et al. 2018; IODINE, Greff et al. 2019; Emami et al. 2021).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from reference_models.parts.nets import mlp


class Refinement(nn.Module):
    """One step of the learned optimiser; the same weights in every step and for every slot.

    Args:
        size: D, of a slot's latent.
        hidden: Of the network that reads posterior and gradient.
    """

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.size = size
        self.read = mlp(4 * size, [hidden], size, nn.ELU)
        self.recall = nn.GRUCell(size, size)
        self.change = nn.Linear(size, 2 * size)

    def forward(self, parameters: Tensor, gradient: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the change of the parameters and the next state.

        Args:
            parameters: Of the slots' posteriors, ``[B, K, 2 D]``, locations first.
            gradient: Of the loss with respect to them; any scale, as it is normalised. No gradient flows into it.
            state: ``[B K, D]`` from the last step, ``None`` in the first.

        Returns:
            ``[B, K, 2 D]`` and ``[B K, D]``.
        """
        halves = gradient.detach().unflatten(-1, (2, self.size))
        seen = torch.cat([parameters, layer_norm(halves, (self.size,)).flatten(-2)], dim=-1)  # [B, K, 4 D]
        state = self.recall(self.read(seen).flatten(0, -2), state)
        return self.change(state).view_as(parameters), state
