"""Inception-v3 (Szegedy et al. 2015) as FID has it: the TensorFlow network of 2015-12-05.

Names are those under which its weights are published for PyTorch. It differs from the usual Inception-v3 in four
ways: average pools do not count their padding, the last block pools by maximum, there are 1,008 classes, and there is
no auxiliary classifier.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d, relu

FEATURES, CLASSES = 2048, 1008

Kernel = int | tuple[int, int]
Layer = tuple[str, int, Kernel]
"""Name, output channels, kernel."""


class Convolution(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: Kernel, stride: int = 1, *, padded: bool = True
    ) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if padded else 0
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs, H, W]`` -> ``[B, outputs, H', W']``."""
        return relu(self.bn(self.conv(x)))


class Block(nn.Module):
    """Chains of convolutions and a pool side by side, their channels joined.

    Args:
        inputs: Input channels.
        chains: Each a list of layers.
        pool: Applied to the input, then a 1x1 convolution to ``pooled`` channels if there are any.
        pooled: See ``pool``.
        forked: Two layers, next to each other, at the end of each chain whose name they begin with.
        halving: Whether each chain ends in a layer of stride 2 without padding.
    """

    def __init__(
        self,
        inputs: int,
        chains: list[list[Layer]],
        pool: Callable[[Tensor], Tensor],
        pooled: int = 0,
        *,
        forked: bool = False,
        halving: bool = False,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.chains: list[
            tuple[list[str], list[str]]
        ] = []  # names of the layers in a row, and of the last ones
        for chain in chains:
            ends = 2 if forked and len(chain) > 1 else 1
            channels = inputs
            for place, (name, outputs, kernel) in enumerate(chain):
                last = place >= len(chain) - ends
                halved = halving and last
                self.add_module(name, Convolution(channels, outputs, kernel, 1 + halved, padded=not halved))
                channels = channels if last else outputs
            names = [name for name, _, _ in chain]
            self.chains.append((names[:-ends], names[-ends:]))
        self.branch_pool = Convolution(inputs, pooled, 1) if pooled else None

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs, H, W]`` -> ``[B, outputs, H', W']``."""
        parts: list[Tensor] = []
        for row, ends in self.chains:
            y = x
            for name in row:
                y = self.get_submodule(name)(y)
            parts += [self.get_submodule(name)(y) for name in ends]
        pooled = self.pool(x)
        return torch.cat([*parts, pooled if self.branch_pool is None else self.branch_pool(pooled)], 1)


def _average(x: Tensor) -> Tensor:
    return avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _maximum(x: Tensor) -> Tensor:
    return max_pool2d(x, 3, stride=1, padding=1)


def _halve(x: Tensor) -> Tensor:
    return max_pool2d(x, 3, stride=2)


_ROW, _COLUMN = (1, 7), (7, 1)


def _block_35(inputs: int, pooled: int) -> Block:
    chains: list[list[Layer]] = [
        [("branch1x1", 64, 1)],
        [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)],
        [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)],
    ]
    return Block(inputs, chains, _average, pooled)


def _block_35_to_17(inputs: int) -> Block:
    chains: list[list[Layer]] = [
        [("branch3x3", 384, 3)],
        [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)],
    ]
    return Block(inputs, chains, _halve, halving=True)


def _block_17(inputs: int, c: int) -> Block:
    chains: list[list[Layer]] = [
        [("branch1x1", 192, 1)],
        [("branch7x7_1", c, 1), ("branch7x7_2", c, _ROW), ("branch7x7_3", 192, _COLUMN)],
        [
            ("branch7x7dbl_1", c, 1),
            ("branch7x7dbl_2", c, _COLUMN),
            ("branch7x7dbl_3", c, _ROW),
            ("branch7x7dbl_4", c, _COLUMN),
            ("branch7x7dbl_5", 192, _ROW),
        ],
    ]
    return Block(inputs, chains, _average, 192)


def _block_17_to_8(inputs: int) -> Block:
    chains: list[list[Layer]] = [
        [("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3)],
        [
            ("branch7x7x3_1", 192, 1),
            ("branch7x7x3_2", 192, _ROW),
            ("branch7x7x3_3", 192, _COLUMN),
            ("branch7x7x3_4", 192, 3),
        ],
    ]
    return Block(inputs, chains, _halve, halving=True)


def _block_8(inputs: int, pool: Callable[[Tensor], Tensor]) -> Block:
    chains: list[list[Layer]] = [
        [("branch1x1", 320, 1)],
        [("branch3x3_1", 384, 1), ("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1))],
        [
            ("branch3x3dbl_1", 448, 1),
            ("branch3x3dbl_2", 384, 3),
            ("branch3x3dbl_3a", 384, (1, 3)),
            ("branch3x3dbl_3b", 384, (3, 1)),
        ],
    ]
    return Block(inputs, chains, pool, 192, forked=True)


class InceptionNetwork(nn.Module):
    """The network, from normalised images ``[B, 3, 299, 299]`` to the features of its last pool ``[B, 2048]``."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, 2, padded=False)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3, padded=False)
        self.Mixed_5b = _block_35(192, 32)
        self.Mixed_5c = _block_35(256, 64)
        self.Mixed_5d = _block_35(288, 64)
        self.Mixed_6a = _block_35_to_17(288)
        self.Mixed_6b = _block_17(768, 128)
        self.Mixed_6c = _block_17(768, 160)
        self.Mixed_6d = _block_17(768, 160)
        self.Mixed_6e = _block_17(768, 192)
        self.Mixed_7a = _block_17_to_8(768)
        self.Mixed_7b = _block_8(1280, _average)
        self.Mixed_7c = _block_8(2048, _maximum)
        self.fc = nn.Linear(FEATURES, CLASSES)  # part of the published file; features are taken before it

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``[B, 2048]``."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # [B, 64, 147, 147]
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(_halve(x)))  # [B, 192, 71, 71]
        x = _halve(x)  # [B, 192, 35, 35]
        for block in (self.Mixed_5b, self.Mixed_5c, self.Mixed_5d):
            x = block(x)  # [B, 288, 35, 35]
        for block in (self.Mixed_6a, self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e):
            x = block(x)  # [B, 768, 17, 17]
        for block in (self.Mixed_7a, self.Mixed_7b, self.Mixed_7c):
            x = block(x)  # [B, 2048, 8, 8]
        return x.mean((2, 3))
