"""Posteriors of slots as GENESIS and GENESIS-v2 read them, and first weights that make a posterior sure."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Independent
from torch.nn.functional import softplus

from reference_models.parts.nets import diagonal_normal, inverse_softplus
from reference_models.parts.precision import full_precision

_SMALLEST_SCALE = 1e-8  # GENESIS code
_RAW_OFFSET = 0.5  # GENESIS code: a raw scale of 0 is a standard deviation of about 1


@full_precision
def posterior_normal(parameters: Tensor) -> Independent:
    """Return the diagonal normal of ``[..., 2 D]``: means, then scales as ``softplus(x + 0.5)`` (GENESIS code)."""
    loc, raw_scale = parameters.chunk(2, dim=-1)
    return diagonal_normal(loc, softplus(raw_scale + _RAW_OFFSET) + _SMALLEST_SCALE)


def raw_posterior_scale(sd: float) -> float:
    """Return the raw scale that `posterior_normal` reads as ``sd``."""
    return inverse_softplus(sd) - _RAW_OFFSET


@torch.no_grad()
def begin_surely(output: nn.Linear, gain: float, raw_scale: float) -> None:
    """Give a posterior other first weights; with PyTorch's own, its noise hides what slots say.

    Args:
        output: The layer that says the posterior: ``[2 D]``, means first.
        gain: Factor of the means' weights.
        raw_scale: What all of its raw scales are to be, whatever the image.
    """
    means, scales = output.weight.chunk(2)
    means.mul_(gain)
    scales.zero_()
    output.bias.chunk(2)[1].fill_(raw_scale)
