"""What a recurrent network looks at an image with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

from torch import Tensor, nn

from reference_models.base import ImageShape


class Eye(nn.Sequential):
    """Convolutions that halve the image, each followed by a ReLU; without any, the pixels as they are.

    The weights keep the size of what passes (He et al. 2015): with PyTorch's own, which shrink it, AIR takes five
    times as many steps to see anything. Maps images ``[B, C, H, W]`` to ``[B, features]``.

    Args:
        image_shape: ``(H, W, C)``.
        filters: Output channels of each convolution.
    """

    def __init__(self, image_shape: ImageShape, filters: Sequence[int]) -> None:
        height, width, channels = image_shape
        layers: list[nn.Module] = []
        for size_in, size_out in pairwise([channels, *filters]):
            convolution = nn.Conv2d(size_in, size_out, kernel_size=5, stride=2, padding=2)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            nn.init.zeros_(cast(Tensor, convolution.bias))
            layers += [convolution, nn.ReLU()]
        super().__init__(*layers, nn.Flatten())
        shrunk = 2 ** len(filters)
        self.features = [channels, *filters][-1] * math.ceil(height / shrunk) * math.ceil(width / shrunk)
