"""The learnable prior of AIR-pPrior: each object's presence and place depend on the objects before it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from reference_models.parts.nets import diagonal_normal, location_and_scale, mlp, output_layer
from reference_models.parts.objects.placing import WHERE
from reference_models.parts.recurrent import SharedInputLSTM, shifted

_UNIT = math.log(math.e - 1)  # softplus gives 1


class AutoregressivePrior(nn.Module):
    """p(pres_t | z_<t) and p(z_where_t | z_<t), from an LSTM over the objects before (Xu et al. 2019, eq. 4).

    Begins as the standard normal, whatever came before.

    Args:
        latents: Size of an object's z.
        size: Of the LSTM's state.
        hidden: Of the networks that read it.
        learn_scale: Whether the scale is learned too; AIR-ASR's released runs keep it standard normal.
    """

    def __init__(self, latents: int, size: int, hidden: int, learn_scale: bool) -> None:
        super().__init__()
        self.learn_scale = learn_scale
        self.lstm = SharedInputLSTM(0, latents, size)
        self.presence = mlp(size, [hidden], 1)
        self.where = mlp(size, [hidden], 2 * WHERE)
        with torch.no_grad():
            for net in (self.presence, self.where):
                output_layer(net).weight.mul_(0.1)
                output_layer(net).bias.zero_()
            output_layer(self.where).bias[WHERE:] = _UNIT

    def forward(self, z: Tensor) -> tuple[Tensor, Independent]:
        """Return what to expect of each object, given those before it.

        Args:
            z: All objects, ``[B, K, latents]``; the last one is not looked at.

        Returns:
            Logits of presence ``[B, K]``, and the prior of z_where with batch ``[B, K]``.
        """
        before = shifted(z.new_zeros(z.shape[-1]), z)
        return self._read(self.lstm.unroll(z.new_empty(len(z), 0), before))

    def _read(self, hidden: Tensor) -> tuple[Tensor, Independent]:
        loc, scale = location_and_scale(self.where(hidden))
        if not self.learn_scale:
            fixed = torch.arange(WHERE, device=hidden.device) == 0
            loc, scale = torch.where(fixed, 0.0, loc), torch.where(fixed, 1.0, scale)
        return self.presence(hidden).squeeze(-1), diagonal_normal(loc, scale)
