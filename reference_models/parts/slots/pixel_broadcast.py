"""Broadcast decoders: the latent of a slot at every pixel beside where that is, and convolutions over it.

IODINE's decoder has no upsampling: its convolutions run at full size, and are nearly all that a model with it
costs. The input of the first one is the same vector everywhere plus what no slot decides, though. A convolution is
linear: its answer is the sum of a map of the positions, once for all slots, and of a product with the latent that
is constant but for the padded border. That saves more than a quarter of the decoder and changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from multiobj_data.errors import UsageError
from reference_models.base import ImageShape


def ramps(height: int, width: int) -> Tensor:
    """Return how far each pixel is from the four sides: ``[1, 4, H, W]`` (right, left, bottom, top) in [0, 1]."""
    x = torch.linspace(0, 1, width).expand(height, -1)
    y = torch.linspace(0, 1, height)[:, None].expand(-1, width)
    return torch.stack([1 - x, x, 1 - y, y])[None]


def convolve_constant(z: Tensor, weight: Tensor, size: tuple[int, int], padding: int) -> Tensor:
    """Return the convolution of maps that hold one vector everywhere.

    Args:
        z: The vectors, ``[N, D]``.
        weight: ``[O, D, k, k]``.
        size: Height and width of the maps.
        padding: Zeros around them.

    Returns:
        ``[N, O, H', W']``, or ``[N, O, 1, 1]`` where it is the same everywhere.
    """
    if not padding:
        return (z @ weight.sum((2, 3)).T)[:, :, None, None]
    taps = torch.einsum("oikl,ni->nokl", weight, z).flatten(2)  # [N, O, k k]
    reached = unfold(z.new_ones(1, 1, *size), weight.shape[-1], padding=padding)[
        0
    ]  # [k k, P], 0 on the padding
    height = size[0] + 2 * padding - weight.shape[-1] + 1
    return (taps @ reached).unflatten(-1, (height, -1))


class SlotDecoder(nn.Module):
    """What every decoder of slots does: colours in [0, 1] and the logits of the masks, from a latent a slot.

    Args:
        size: D, of a slot's latent.
        image_shape: ``(H, W, C)``.
    """

    def __init__(self, size: int, image_shape: ImageShape) -> None:
        super().__init__()
        self.size, self.image_shape = size, image_shape

    def maps(self, z: Tensor) -> Tensor:
        """Return ``[N, C + 1, H, W]`` for ``z [N, D]``."""
        raise NotImplementedError

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Decode ``z [B, K, D]`` to colours ``[B, K, C, H, W]`` in [0, 1] and mask logits ``[B, K, 1, H, W]``."""
        channels = self.image_shape[-1]
        maps = self.maps(z.flatten(0, 1)).to(z.dtype).unflatten(0, z.shape[:2])  # of full precision again
        colours, mask_logits = maps.split([channels, 1], dim=2)
        return torch.sigmoid(colours), mask_logits


class PixelBroadcastDecoder(SlotDecoder):
    """IODINE's decoder: the latent is broadcast to every pixel and convolved at full size (Greff et al. 2019).

    Args:
        size: D, of a slot's latent.
        image_shape: ``(H, W, C)``; any size.
        channels: Of the hidden layers.
        layers: How many of them.
        kernel: Their width in pixels, odd.
        padding: Around them.
        last_padding: Around the last layer, of width 3.
        activation: Between the layers.
    """

    positions: Tensor

    def __init__(
        self,
        size: int,
        image_shape: ImageShape,
        channels: int,
        layers: int = 4,
        kernel: int = 3,
        padding: int = 0,
        last_padding: int = 0,
        activation: type[nn.Module] = nn.ELU,
    ) -> None:
        super().__init__(size, image_shape)
        margin = layers * (kernel - 1 - 2 * padding) + 2 - 2 * last_padding  # the layers cut it off again
        self.register_buffer(
            "positions", ramps(image_shape[0] + margin, image_shape[1] + margin), persistent=False
        )
        self.project = nn.Linear(4, size)
        self.first = nn.Conv2d(size, channels, kernel, padding=padding)
        between: list[nn.Module] = []
        for _ in range(layers - 1):
            between += [activation(), nn.Conv2d(channels, channels, kernel, padding=padding)]
        self.rest = nn.Sequential(
            *between, activation(), nn.Conv2d(channels, image_shape[-1] + 1, 3, padding=last_padding)
        )

    def maps(self, z: Tensor) -> Tensor:
        """See `SlotDecoder`."""
        where = self.project(self.positions.movedim(1, -1)).movedim(-1, 1)  # [1, D, H', W']
        size = (where.shape[-2], where.shape[-1])
        shares = convolve_constant(z, self.first.weight, size, int(self.first.padding[0]))
        maps: Tensor = self.rest(self.first(where) + shares)  # [N, C + 1, H, W]
        return maps


class GridBroadcastDecoder(SlotDecoder):
    """Slot Attention's decoder for large images: broadcast to a 16th of each side, and upsampled four times.

    Differs from the released code: its grid is 6 x 6, for 96 x 96 pixels alone.

    Args:
        size: D, of a slot's latent.
        image_shape: ``(H, W, C)``; sides that are multiples of 16.
        channels: Of the hidden layers.

    Raises:
        UsageError: A side is no multiple of 16.
    """

    positions: Tensor

    def __init__(self, size: int, image_shape: ImageShape, channels: int) -> None:
        super().__init__(size, image_shape)
        height, width, _ = image_shape
        if height % 16 or width % 16:
            raise UsageError(
                f"decoder big makes images whose sides are multiples of 16, got {height} x {width}; "
                "choose decoder plain, or other data."
            )
        self.register_buffer("positions", ramps(height // 16, width // 16), persistent=False)
        self.project = nn.Linear(4, size)
        self.layers = nn.Sequential(*_upsampling([size, *4 * [channels]], channels, image_shape[-1] + 1))

    def maps(self, z: Tensor) -> Tensor:
        """See `SlotDecoder`."""
        where = self.project(self.positions.movedim(1, -1)).movedim(-1, 1)
        maps: Tensor = self.layers(where + z[:, :, None, None])
        return maps


def _upsampling(sizes: Sequence[int], channels: int, outputs: int) -> list[nn.Module]:
    """Return layers that each double the sides, between the given numbers of channels, and two that smooth."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.ConvTranspose2d(before, after, 5, stride=2, padding=2, output_padding=1), nn.ReLU()]
    layers += [nn.ConvTranspose2d(channels, channels, 5, padding=2), nn.ReLU()]
    return [*layers, nn.ConvTranspose2d(channels, outputs, 3, padding=1)]
