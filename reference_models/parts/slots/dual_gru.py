"""Two GRUs that read the same update, one for the means of the slots' posteriors and one for their scales."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DualGRU(nn.Module):
    """Two independent gated recurrent units, computed as one (Emami et al. 2021, sec. 3.1).

    The paper pads one GRU of twice the size to block-diagonal weights; batched products of the blocks alone are
    the same function without the zeros.

    Args:
        inputs: Size of the update.
        size: Of each unit's state.
        initial_sd: Standard deviation of the initial weights and biases; ``None`` for PyTorch's GRU, uniform in
            ``±1 / sqrt(size)``.
    """

    def __init__(self, inputs: int, size: int, initial_sd: float | None = None) -> None:
        super().__init__()
        self.size = size
        self.read = nn.Parameter(torch.empty(2, inputs, 3 * size))  # reset, keep, new
        self.read_bias = nn.Parameter(torch.empty(2, 1, 3 * size))
        self.recall = nn.Parameter(torch.empty(2, size, 3 * size))
        self.recall_bias = nn.Parameter(torch.empty(2, 1, 3 * size))
        for parameter in self.parameters():
            if initial_sd is None:
                nn.init.uniform_(parameter, -(size**-0.5), size**-0.5)
            else:
                nn.init.normal_(parameter, std=initial_sd)

    def forward(self, update: Tensor, state: Tensor) -> Tensor:
        """Return the next states.

        Args:
            update: ``[..., inputs]``, read by both.
            state: ``[..., 2 size]``, the first unit's state and then the second's.

        Returns:
            ``[..., 2 size]``.
        """
        h = state.reshape(-1, 2, self.size).movedim(1, 0)  # [2, N, size]
        x = update.reshape(1, -1, update.shape[-1]).expand(2, -1, -1)  # [2, N, inputs]
        read = torch.baddbmm(self.read_bias, x, self.read)  # [2, N, 3 size]
        recalled = torch.baddbmm(self.recall_bias, h, self.recall)
        gates = 2 * self.size
        reset, keep = torch.sigmoid(read[..., :gates] + recalled[..., :gates]).chunk(2, dim=-1)
        new = torch.tanh(read[..., gates:] + reset * recalled[..., gates:])
        kept = torch.lerp(new.to(h.dtype), h, keep.to(h.dtype))  # the state stays precise under autocast
        return kept.movedim(0, 1).reshape(state.shape)
