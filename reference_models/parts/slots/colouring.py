"""Instance colouring stick-breaking (IC-SBP): cluster pixels into slots (Engelcke et al., 2021, sec. 3.1).

Every pixel gets a colour, such that pixels of one instance have similar ones. Then, slot after slot: pick a seed
among the pixels that are not claimed yet, and claim the pixels whose colours are near the seed's. The last slot
gets what is left. No loop runs over pixels or images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from reference_models.parts.precision import full_precision
from reference_models.parts.slots.broadcast import coordinates

Kernel = Literal["gaussian", "laplacian", "epanechnikov"]

LEAST, MOST = 0.01, 0.99
"""Least and largest part of what is left of a pixel that a slot may claim."""


def first_width(kernel: Kernel, slots: int) -> float:
    """Return the width at which, of ``slots`` slots with colours in [-1, 1]^2, each begins with its share."""
    if kernel == "gaussian":
        return 1 / (slots * math.log(2))
    if kernel == "laplacian":
        return 1 / (math.sqrt(slots) * math.log(2))
    return 2 / slots


class InstanceColouring(nn.Module):
    """Features -> log masks.

    Args:
        width: Channels of the features.
        slots: For which the kernel's first width is chosen; any number may be asked for later.
        colours: Size of a pixel's colour; the last two begin as its position.
        kernel: How the claim falls with the distance to the seed's colour.
    """

    def __init__(self, width: int, slots: int, colours: int = 8, kernel: Kernel = "gaussian") -> None:
        super().__init__()
        self.kernel: Kernel = kernel
        self.read = nn.Conv2d(width, colours, 1)
        # Clusters begin as positions (GENESIS-v2: a gate of 0, at which the colours would have no gradient yet).
        self.gate = nn.Parameter(torch.tensor(1e-3))
        self.log_width = nn.Parameter(torch.tensor(first_width(kernel, slots)).log())

    @full_precision
    def forward(self, features: Tensor, uniform: Tensor, slots: int) -> Tensor:
        """Return log masks ``[B, K, H, W]``, whose exponentials sum to 1 over K.

        Args:
            features: ``[B, width, H, W]``.
            uniform: ``[B, H, W]`` in [0, 1): one draw a pixel decides all seeds of an image.
            slots: K.
        """
        colours = self.colours(features)
        return stick_breaking(colours.flatten(2), uniform.flatten(1), slots, self.claim).unflatten(
            -1, features.shape[-2:]
        )

    def colours(self, features: Tensor) -> Tensor:
        """Return the pixels' colours ``[B, colours, H, W]``: gated features plus the position (semi-convolutional)."""
        gated = self.gate * self.read(features)
        place = coordinates(features.shape[-2], features.shape[-1], features)  # [2, H, W]
        none = place.new_zeros(gated.shape[1] - 2, *place.shape[1:])
        return gated + torch.cat([none, place])

    def claim(self, squared: Tensor) -> Tensor:
        """Return the part of each pixel claimed at a squared distance to the seed's colour, in [0, 1]."""
        width = self.log_width.exp()
        if self.kernel == "gaussian":
            return (-squared / width).exp()
        distance = (squared + 1e-12).sqrt()  # a root of 0 has no gradient
        if self.kernel == "laplacian":
            return (-distance / width).exp()
        return (1 - squared / width).relu()


def stick_breaking(colours: Tensor, uniform: Tensor, slots: int, claim: Callable[[Tensor], Tensor]) -> Tensor:
    """Return log masks ``[B, K, P]``.

    Args:
        colours: ``[B, D, P]``.
        uniform: ``[B, P]`` in [0, 1).
        slots: K.
        claim: Squared distances ``[B, P]`` -> claimed parts ``[B, P]``.
    """
    scope = torch.zeros_like(colours[:, 0])  # [B, P], log of what is left of each pixel
    tickets = uniform.log()  # -inf never wins
    masks = []
    for _ in range(slots - 1):
        seed = (tickets + scope.detach()).argmax(-1)  # [B]
        index = seed[:, None, None].expand(-1, colours.shape[1], 1)
        squared = (colours - colours.gather(2, index)).square().sum(1)  # [B, P]
        part = clamped(claim(squared))
        masks.append(scope + part.log())
        scope = scope + (1 - part).log()
    return torch.stack([*masks, scope], dim=1)


def clamped(part: Tensor) -> Tensor:
    """Limit to [`LEAST`, `MOST`], with the gradient of what is not limited."""
    return part + (part.clamp(LEAST, MOST) - part).detach()
