"""Autoregressive priors over slots: each slot given those before it, and the scene (GENESIS; SRI, eq. 2)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Independent
from torch.nn.functional import gelu, linear, softplus

from reference_models.parts.nets import diagonal_normal
from reference_models.parts.precision import full_precision
from reference_models.parts.recurrent import lstm, shifted

Form = Literal["genesis", "sri"]

_LARGEST = 80.0
"""Beyond which SRI's code does not let a raw variance grow."""


def bounded_normal(parameters: Tensor) -> Independent:
    """Return GENESIS' prior of a slot: locations in [-1, 1], scales in (0, 1], from ``parameters [..., 2 D]``."""
    loc, raw = parameters.chunk(2, dim=-1)
    return diagonal_normal(loc.tanh(), torch.sigmoid(raw + 4) + 1e-4)


def softplus_scale(raw: Tensor) -> Tensor:
    """Return SRI's and EfficientMORL's scales: a softplus is the variance."""
    return (softplus(raw.clamp(max=_LARGEST)) + 1e-5).sqrt()


def softplus_normal(parameters: Tensor) -> Independent:
    """Return the diagonal normal of ``parameters [..., 2 D]`` with scales by `softplus_scale`."""
    loc, raw = parameters.chunk(2, dim=-1)
    return diagonal_normal(loc, softplus_scale(raw))


class SlotLSTM(nn.Module):
    """An LSTM over slots, with the parameters and first weights of `torch.nn.LSTM`.

    Written out, because PyTorch's own neither runs under `torch.func.vmap` nor compiles.

    Args:
        inputs: Size of an input.
        size: Of the state.
    """

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.from_input = nn.Parameter(torch.empty(4 * size, inputs))  # gates: i, f, o, new
        self.from_hidden = nn.Parameter(torch.empty(4 * size, size))
        self.bias_input = nn.Parameter(torch.empty(4 * size))
        self.bias_hidden = nn.Parameter(torch.empty(4 * size))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(size**-0.5), size**-0.5)

    def begin(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return (hidden, cell) before the first slot, zeros ``[B, size]`` for ``like [B, ...]``."""
        zeros = like.new_zeros(len(like), self.size)
        return zeros, zeros

    def step(self, inputs: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the next (hidden, cell) for ``inputs [B, inputs]``."""
        return self._step(linear(inputs, self.from_input, self.bias_input), state)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the hidden states ``[B, K, size]`` for ``inputs [B, K, inputs]``."""
        gates = linear(inputs, self.from_input, self.bias_input)  # of all slots at once
        state, hidden = self.begin(inputs), []
        for step in gates.unbind(1):
            state = self._step(step, state)
            hidden.append(state[0])
        return torch.stack(hidden, dim=1)

    def _step(self, gates: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        hidden, cell = state
        return lstm(gates + linear(hidden, self.from_hidden, self.bias_hidden), cell)


class SlotPrior(nn.Module):
    """p(z_1, ..., z_K) or p(z_1, ..., z_K | s), slot by slot.

    With a scene variable, its embedding is the LSTM's first input; without, the first slot is standard normal and is
    the first input. K is not fixed.

    Args:
        slot_size: D.
        scene_size: Size of s; 0: none.
        form: How a slot's parameters are read: `bounded_normal` (GENESIS) or `softplus_normal` (SRI).
        size: Of the LSTM's state.
    """

    def __init__(self, slot_size: int, scene_size: int = 0, form: Form = "genesis", size: int = 256) -> None:
        super().__init__()
        self.slot_size = slot_size
        self.embed = nn.Linear(scene_size, slot_size) if scene_size else None
        self.lstm = SlotLSTM(slot_size, size)
        self.read = nn.Linear(size, 2 * slot_size)
        self.normal = {"genesis": bounded_normal, "sri": softplus_normal}[form]

    @full_precision
    def forward(self, z: Tensor, scene: Tensor | None = None) -> Independent:
        """Return what to expect of each slot given those before it, all in one call.

        Args:
            z: Slots in their order, ``[B, K, D]``; the last one is not looked at.
            scene: ``[B, scene_size]``.

        Returns:
            Normal with batch ``[B, K]`` and event ``[D]``.
        """
        if self.embed is not None:
            return self.normal(self.read(self.lstm(shifted(self.embedding(scene), z))))
        later = self.normal(self.read(self.lstm(z[:, :-1]))).base_dist
        first = torch.zeros_like(z[:, :1])
        loc = torch.cat([first, later.loc], dim=1)
        return diagonal_normal(loc, torch.cat([first + 1, later.scale], dim=1))

    @full_precision
    def rollout(
        self, noise: Tensor, scene: Tensor | None = None, temperature: float = 1.0
    ) -> tuple[Independent, Tensor]:
        """Sample slot after slot; the gradient flows through the sampled chain.

        Args:
            noise: Standard normal ``[B, K, D]``; any K.
            scene: ``[B, scene_size]``.
            temperature: Factor of the scales.

        Returns:
            What was expected of each slot (scales without temperature, batch ``[B, K]``), and z ``[B, K, D]``.
        """
        state = self.lstm.begin(noise)
        step = None if self.embed is None else self.embedding(scene)
        locs: list[Tensor] = []
        scales: list[Tensor] = []
        zs: list[Tensor] = []
        for e in noise.unbind(1):
            if step is None:  # the first slot, without a scene
                loc, scale = torch.zeros_like(e), torch.ones_like(e)
            else:
                state = self.lstm.step(step, state)
                normal = self.normal(self.read(state[0])).base_dist
                loc, scale = normal.loc, normal.scale
            step = loc + temperature * scale * e
            locs.append(loc)
            scales.append(scale)
            zs.append(step)
        return diagonal_normal(torch.stack(locs, 1), torch.stack(scales, 1)), torch.stack(zs, 1)

    def embedding(self, scene: Tensor | None) -> Tensor:
        """Return the first input ``[B, D]`` of a scene ``[B, scene_size]``."""
        if self.embed is None or scene is None:
            raise ValueError("SlotPrior: a scene goes with a scene_size, and neither without the other.")
        return gelu(self.embed(scene))
