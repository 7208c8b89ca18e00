"""Small networks, and the distributions that they hand on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal
from torch.nn.functional import softplus


def mlp(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """Return a multilayer perceptron with ReLU between its layers and none at the end."""
    sizes = [inputs, *hidden]
    layers: list[nn.Module] = []
    for size_in, size_out in pairwise(sizes):
        layers += [nn.Linear(size_in, size_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))


def output_layer(net: nn.Sequential) -> nn.Linear:
    """Return the last layer of an `mlp`, to give it other initial weights."""
    return cast(nn.Linear, net[-1])


def diagonal_normal(loc: Tensor, scale: Tensor) -> Independent:
    """Return the normal distribution over the last axis with independent coordinates."""
    # Validation would look at every value on every step; the losses are checked for NaN instead.
    return Independent(Normal(loc, scale, validate_args=False), 1, validate_args=False)


def standard_normal(like: Tensor) -> Independent:
    """Return N(0, I) with the shape, type and device of ``like``."""
    return diagonal_normal(torch.zeros_like(like), torch.ones_like(like))


def normal_from(parameters: Tensor) -> Independent:
    """Read a diagonal normal from ``[..., 2 D]``: D locations, then D scales before softplus."""
    loc, raw_scale = parameters.chunk(2, dim=-1)
    return diagonal_normal(loc, softplus(raw_scale))


def reparameterise(q: Independent, noise: Tensor) -> Tensor:
    """Return the sample of ``q`` that belongs to the standard normal ``noise``; zeros give the mean."""
    return torch.addcmul(q.base_dist.loc, q.base_dist.scale, noise)
