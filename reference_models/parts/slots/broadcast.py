"""Spatial broadcast decoder: a slot's code, spread over a small grid, becomes colours and a mask.

Watters et al. (2019) decode at full resolution; GENESIS-v2 begins with a sixteenth of it and upsamples.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from reference_models.parts.nets import group_norm
from reference_models.parts.precision import full_precision

UPSAMPLING = 16
"""Pixels of the image a cell of the first grid: four times twice."""


def coordinates(height: int, width: int, like: Tensor) -> Tensor:
    """Return row and column of each pixel, from -1 to 1, as ``[2, H, W]`` with the type and device of ``like``."""
    rows = torch.linspace(-1, 1, height, dtype=like.dtype, device=like.device)
    columns = torch.linspace(-1, 1, width, dtype=like.dtype, device=like.device)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"))


class BroadcastDecoder(nn.Module):
    """Codes -> colours and mask logits, for all slots of all images at once (GENESIS-v2, SRI).

    Args:
        size: Of a code.
        image_shape: ``(H, W, C)``; H and W are multiples of `UPSAMPLING`.
        width: Channels of the hidden layers, a multiple of 8.
        bounded: Whether colours are squashed into [0, 1] by a sigmoid.
    """

    def __init__(
        self, size: int, image_shape: tuple[int, int, int], width: int, bounded: bool = True
    ) -> None:
        super().__init__()
        height, width_of_image, channels = image_shape
        self.grid = height // UPSAMPLING, width_of_image // UPSAMPLING
        self.channels, self.bounded = channels, bounded
        layers: list[nn.Module] = []
        for size_in, size_out in pairwise([size + 2, size, size, width, width]):
            layers += [
                nn.ConvTranspose2d(size_in, size_out, 5, stride=2, padding=2, output_padding=1),
                group_norm(size_out),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers)
        self.paint = nn.Linear(width, channels + 1)  # of each pixel

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return colours ``[B, K, C, H, W]`` and mask logits ``[B, K, 1, H, W]`` of codes ``z [B, K, D]``."""
        codes = z.flatten(0, 1)  # [B K, D]
        height, width = self.grid
        place = coordinates(height, width, codes).expand(len(codes), -1, -1, -1)
        spread = codes[:, :, None, None].expand(-1, -1, height, width)
        features = self.layers(torch.cat([spread, place], dim=1))  # [B K, width, H, W]
        # A 1 x 1 convolution, as one product: on a CPU more than twice as fast, backwards above all.
        weight = self.paint.weight.expand(len(codes), -1, -1)
        pixels = torch.baddbmm(self.paint.bias[:, None], weight, features.flatten(2))
        painted = pixels.unflatten(-1, features.shape[-2:]).unflatten(0, z.shape[:2])
        colours, logits = painted.split([self.channels, 1], dim=2)
        return torch.sigmoid(colours) if self.bounded else colours, logits


def masked(decoded: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Turn a decoder's (colours, mask logits) into (colours, log masks): slots compete for each pixel."""
    return _compete(*decoded)


@full_precision
def _compete(colours: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    return colours, logits.log_softmax(1)
