"""Gated convolutions: half of the channels say how much of the other half passes (van den Berg et al. 2018).

A stack of them, strided, reads an image into a vector; its mirror image writes a vector as a map. GENESIS builds
the network of its masks from both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

KERNEL = 5  # GENESIS code: of all layers but those between vector and grid
_HALF = KERNEL // 2


class Gate(nn.Module):
    """``h * sigmoid(g)`` of values ``[N, 2 C, ...]``, both normalised over the batch unless said otherwise.

    Args:
        channels: C.
        normalise: Batch normalisation first; one of 2 C channels is one of h and one of g.
    """

    def __init__(self, channels: int, *, normalise: bool = True) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2 * channels) if normalise else nn.Identity()

    def forward(self, values: Tensor) -> Tensor:
        """Return ``[N, C, ...]``."""
        h, g = self.norm(values).chunk(2, dim=1)
        passed: Tensor = h * torch.sigmoid(g)
        return passed


class GatedEncoder(nn.Module):
    """Reads an image into features.

    Args:
        channels: Of the image.
        widths: Channels of each layer.
        strides: Of each layer; their product divides the image's sides.
        grid: ``(h, w)`` that the image has after the last layer.
        features: How many come out.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        strides: Sequence[int],
        grid: tuple[int, int],
        features: int,
    ) -> None:
        super().__init__()
        layers = []
        for (size_in, size_out), stride in zip(pairwise([channels, *widths]), strides, strict=True):
            # No bias: batch normalisation would subtract it again.
            conv = nn.Conv2d(size_in, 2 * size_out, KERNEL, stride, padding=_HALF, bias=False)
            layers.append(nn.Sequential(conv, Gate(size_out)))
        self.layers = nn.Sequential(*layers)
        # A convolution as large as the grid: the same as a linear layer, and faster so.
        last = nn.Linear(widths[-1] * math.prod(grid), 2 * features)
        self.gather = nn.Sequential(nn.Flatten(), last, Gate(features, normalise=False))

    def forward(self, images: Tensor) -> Tensor:
        """Return features ``[N, features]`` of ``images [N, C, H, W]``."""
        features: Tensor = self.gather(self.layers(images))
        return features


class GatedDecoder(nn.Module):
    """Writes vectors as maps of one channel.

    Args:
        inputs: Size of a vector.
        first: Channels of the grid that a vector is spread out to.
        widths: Channels of each layer after that.
        strides: By which each of these layers enlarges.
        grid: ``(h, w)`` to begin with.
    """

    def __init__(
        self, inputs: int, first: int, widths: Sequence[int], strides: Sequence[int], grid: tuple[int, int]
    ) -> None:
        super().__init__()
        self.spread = nn.Sequential(nn.ConvTranspose2d(inputs, 2 * first, grid), Gate(first, normalise=False))
        layers = []
        for (size_in, size_out), stride in zip(pairwise([first, *widths]), strides, strict=True):
            conv = nn.ConvTranspose2d(
                size_in, 2 * size_out, KERNEL, stride, padding=_HALF, output_padding=stride - 1, bias=False
            )
            layers.append(nn.Sequential(conv, Gate(size_out)))
        self.layers = nn.Sequential(*layers)
        self.last = nn.Conv2d(widths[-1], 1, 1)

    def forward(self, z: Tensor) -> Tensor:
        """Return maps ``[N, 1, H, W]`` of ``z [N, inputs]``."""
        maps: Tensor = self.last(self.layers(self.spread(z[..., None, None])))
        return maps
