"""Small networks, and the distributions that they hand on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal
from torch.nn.functional import softplus


def mlp(
    inputs: int, hidden: Sequence[int], outputs: int, activation: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """Return a multilayer perceptron with an activation between its layers and none at the end."""
    sizes = [inputs, *hidden]
    layers: list[nn.Module] = []
    for size_in, size_out in pairwise(sizes):
        layers += [nn.Linear(size_in, size_out), activation()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))


def output_layer(net: nn.Sequential) -> nn.Linear:
    """Return the last layer of an `mlp`, to give it other initial weights."""
    return cast(nn.Linear, net[-1])


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a group normalisation in 8 groups as GENESIS-v2 has it, or in fewer, of no less than 8 channels each.

    What is the same at all pixels, such as the colour that a slot has, passes only as differences between the
    channels of a group; small groups leave little of it.

    Args:
        channels: A multiple of 8.
    """
    return nn.GroupNorm(min(8, channels // 8), channels)


def diagonal_normal(loc: Tensor, scale: Tensor) -> Independent:
    """Return the normal distribution over the last axis with independent coordinates."""
    # Validation would look at every value on every step; the losses are checked for NaN instead.
    return Independent(Normal(loc, scale, validate_args=False), 1, validate_args=False)


def location_and_scale(parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Read ``[..., 2 D]``: D locations, then D scales before softplus; return each as ``[..., D]``."""
    loc, raw_scale = parameters.chunk(2, dim=-1)
    return loc, softplus(raw_scale)


def inverse_softplus(value: float) -> float:
    """Return what softplus makes ``value``, a positive number, of."""
    return value + math.log(-math.expm1(-value))


def normal_from(parameters: Tensor) -> Independent:
    """Return the diagonal normal that ``parameters [..., 2 D]`` say (see `location_and_scale`)."""
    return diagonal_normal(*location_and_scale(parameters))


def reparameterise(parameters: Tensor, noise: Tensor) -> Tensor:
    """Return the sample of ``normal_from(parameters)`` that belongs to the standard normal ``noise``.

    Zeros give the mean. No distribution is built: a recurrent model asks for a sample in every step.
    """
    loc, scale = location_and_scale(parameters)
    return torch.addcmul(loc, scale, noise)


def kl_to_standard_normal(q: Independent) -> Tensor:
    """Return KL(q || N(0, I)) of a diagonal normal in nats: ``[...]`` (Kingma & Welling 2014, appendix B)."""
    loc, scale = q.base_dist.loc, q.base_dist.scale
    return 0.5 * (loc.square() + scale.square() - 1).sum(-1) - scale.log().sum(-1)


def standard_normal_log_density(z: Tensor) -> Tensor:
    """Return log N(z; 0, I) over the last axis in nats: ``[...]``."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)
