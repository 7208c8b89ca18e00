"""GENESIS' components: what a slot looks like, given where it is.

Letters: N slots (of all images), D latent size, C H W channels and pixels.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Independent
from torch.nn.functional import conv2d

from reference_models.parts.nets import output_layer
from reference_models.parts.slots.posterior import begin_surely, posterior_normal, raw_posterior_scale

LEAST_LOG_MASK = -14.0
"""The encoder reads no smaller one; the object-centric library (OCL) clamps so. Of the likelihood nothing is cut."""


class ComponentEncoder(nn.Module):
    """q(z_c | x, m): convolutions over the image with the log of the slot's mask on top.

    Args:
        image_shape: ``(H, W, C)``.
        width: Channels of the first two layers; the last two have twice as many.
        hidden: Size of the layer after them.
        latents: D.
    """

    def __init__(self, image_shape: tuple[int, int, int], width: int, hidden: int, latents: int) -> None:
        super().__init__()
        height, width_px, channels = image_shape
        sizes = [1 + channels, width, width, 2 * width, 2 * width]
        layers: list[nn.Module] = []
        for size_in, size_out in pairwise(sizes):
            layers += [nn.Conv2d(size_in, size_out, 3, stride=2, padding=1), nn.ELU()]
            height, width_px = (height + 1) // 2, (width_px + 1) // 2
        layers += [nn.Flatten(), nn.Linear(sizes[-1] * height * width_px, hidden), nn.ELU()]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, 2 * latents))

    def begin_surely(self, gain: float, sd: float) -> None:
        """See `posterior.begin_surely`: ``sd`` is the first standard deviation of all latents."""
        begin_surely(output_layer(self.layers), gain, raw_posterior_scale(sd))

    def forward(self, images: Tensor, log_masks: Tensor) -> Independent:
        """Return q with batch ``[B, K]`` for ``images [B, C, H, W]`` and ``log_masks [B, K, 1, H, W]``."""
        slots = log_masks.shape[1]
        seen = images[:, None].expand(-1, slots, -1, -1, -1)
        stacked = torch.cat([log_masks.clamp(min=LEAST_LOG_MASK), seen], dim=2).flatten(0, 1)
        return posterior_normal(self.layers(stacked).unflatten(0, (-1, slots)))


class ComponentDecoder(nn.Module):
    """Colours of a slot: its code at every pixel beside the pixel's place, then convolutions (Watters et al. 2019).

    The first convolution reads a code that is the same at every pixel: its answer to the code is one vector a
    slot, its answer to the places one map for all slots, and their sum is what the convolution would give.

    Args:
        image_shape: ``(H, W, C)``.
        latents: D.
        width: Channels of the hidden layers.
    """

    layers_without_padding = 4
    places: Tensor

    def __init__(self, image_shape: tuple[int, int, int], latents: int, width: int) -> None:
        super().__init__()
        height, width_px, channels = image_shape
        self.latents = latents
        self.first = nn.Conv2d(latents + 2, width, 3)
        layers: list[nn.Module] = [nn.ELU()]
        for _ in range(self.layers_without_padding - 1):
            layers += [nn.Conv2d(width, width, 3), nn.ELU()]
        self.rest = nn.Sequential(*layers, nn.Conv2d(width, channels, 1), nn.Sigmoid())
        margin = 2 * self.layers_without_padding  # what they take off the sides
        ends = [torch.linspace(-1, 1, size + margin) for size in (height, width_px)]
        places = torch.stack(torch.meshgrid(*ends, indexing="ij"))[
            None
        ]  # [1, 2, H + 8, W + 8]: rows, columns
        self.register_buffer("places", places, persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        """Return colours ``[B, K, C, H, W]`` in [0, 1] of ``z [B, K, D]``."""
        of_code, of_place = self.first.weight.split([self.latents, 2], dim=1)
        code = z.flatten(0, 1) @ of_code.sum((2, 3)).mT  # [N, width]
        place = conv2d(self.places, of_place, self.first.bias)  # [1, width, H + 6, W + 6]
        colours: Tensor = self.rest(code[..., None, None] + place)
        return colours.unflatten(0, z.shape[:2])
