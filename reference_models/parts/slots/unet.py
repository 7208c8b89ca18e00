"""The U-Net of GENESIS-v2 (Engelcke et al., 2021): an image to features at the same resolution."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from reference_models.parts.nets import group_norm


def normalised_conv(size_in: int, size_out: int) -> nn.Sequential:
    """Return a 3 x 3 convolution, group normalisation and ReLU; ``size_out`` is a multiple of 8."""
    return nn.Sequential(
        nn.Conv2d(size_in, size_out, 3, padding=1, bias=False),
        group_norm(size_out),
        nn.ReLU(inplace=True),
    )


def block_widths(blocks: int, width: int) -> tuple[list[int], list[int]]:
    """Return the output channels of the blocks on the way down and on the way up."""
    down = [width] * (blocks - 3) + [2 * width] * 3
    up = [2 * width] * 2 + [width] * (blocks - 2)
    return down, up


class UNet(nn.Module):
    """Image -> features ``[B, width, H, W]``.

    On the way down, each block's features are kept as a skip and every other pixel goes on; at the bottom, an
    MLP sees the whole image.

    Args:
        channels: Of the image.
        height: Of the image, at least 16, as its width.
        width_of_image: Of the image.
        width: Channels of the features, a multiple of 8; twice as many further down.
        hidden: Size of the two hidden layers at the bottom.
    """

    def __init__(
        self, channels: int, height: int, width_of_image: int, width: int, hidden: int = 128
    ) -> None:
        super().__init__()
        blocks = int(math.log2(min(height, width_of_image)) - 1)
        down, up = block_widths(blocks, width)
        self.down = nn.ModuleList(map(normalised_conv, [channels, *down[:-1]], down))
        below = [down[-1], *up[:-1]]
        self.up = nn.ModuleList(map(normalised_conv, map(sum, zip(below, down[::-1], strict=True)), up))
        shrunk = 2 ** (blocks - 1)
        self.bottom = -(-height // shrunk), -(-width_of_image // shrunk)
        cells = down[-1] * self.bottom[0] * self.bottom[1]
        self.mlp = nn.Sequential(
            nn.Linear(cells, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, cells),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return features ``[B, width, H, W]`` of ``images [B, C, H, W]``."""
        skips: list[Tensor] = []
        x = images
        for block in self.down:
            x = block(x if not skips else x[:, :, ::2, ::2])  # nearest neighbours at half the size
            skips.append(x)
        x = self.mlp(x.flatten(1)).relu().unflatten(1, (-1, *self.bottom))
        for block, skip in zip(self.up, reversed(skips), strict=True):
            if x.shape[-2:] != skip.shape[-2:]:
                x = interpolate(x, skip.shape[-2:], mode="nearest")
            x = block(torch.cat([x, skip], dim=1))
        return x
