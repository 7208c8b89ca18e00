"""Small recurrent networks over the objects of an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def lstm(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Return the LSTM's next (hidden, cell), each ``[B, D]``, from its gates ``[B, 4 D]`` (i, f, o, new)."""
    size = cell.shape[-1]
    gates, new = gates.split([3 * size, size], dim=-1)
    admit, keep, show = torch.sigmoid(gates).chunk(3, dim=-1)
    cell = keep * cell + admit * torch.tanh(new)
    return show * torch.tanh(cell), cell


class SharedInputLSTM(nn.Module):
    """An LSTM that reads the same context in every step, and whose share of the gates is computed once.

    Args:
        context: Size of what is the same in every step; 0 for none.
        inputs: Size of what differs.
        size: Of the state.
    """

    def __init__(self, context: int, inputs: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.read_context = nn.Linear(context, 4 * size, bias=False) if context else None
        self.read_step = nn.Linear(size + inputs, 4 * size)
        bound = size**-0.5
        with torch.no_grad():
            for parameter in self.parameters():
                nn.init.uniform_(parameter, -bound, bound)
            self.read_step.bias.zero_()
            self.read_step.bias[size : 2 * size] = 1.0  # remember at first

    def gates(self, context: Tensor) -> Tensor:
        """Return the share of the gates that ``context [B, context]`` has in every step: ``[B, 4 size]``."""
        if self.read_context is None:
            return context.new_zeros(len(context), 4 * self.size)
        gates: Tensor = self.read_context(context)
        return gates

    def step(
        self, context_gates: Tensor, inputs: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the next (hidden, cell), each ``[B, size]``.

        Args:
            context_gates: What `gates` returned, ``[B, 4 size]``.
            inputs: Of this step, ``[B, inputs]``.
            state: (hidden, cell) before; their batch may be 1.
        """
        hidden, cell = state
        return lstm(context_gates + self.read_step(torch.cat([hidden, inputs], dim=-1)), cell)

    def unroll(self, context: Tensor, inputs: Tensor) -> Tensor:
        """Return the hidden states ``[B, K, size]`` for ``context [B, context]`` and ``inputs [B, K, inputs]``."""
        context_gates = self.gates(context)
        state = (inputs.new_zeros(len(inputs), self.size), inputs.new_zeros(len(inputs), self.size))
        hidden = []
        for step in inputs.unbind(1):
            state = self.step(context_gates, step, state)
            hidden.append(state[0])
        return torch.stack(hidden, dim=1)


def shifted(first: Tensor, z: Tensor) -> Tensor:
    """Return what each step finds when it begins: ``first [D]`` or ``[B, D]``, then ``z [B, K, D]`` but the last."""
    return torch.cat([first.expand(len(z), z.shape[-1])[:, None], z[:, :-1]], dim=1)
