"""From an image to a posterior of its slots: GENESIS-v2's encoder, and one by Slot Attention in its place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Independent
from torch.nn.functional import linear

from reference_models.parts.nets import mlp, output_layer
from reference_models.parts.precision import full_precision
from reference_models.parts.slots.broadcast import coordinates
from reference_models.parts.slots.colouring import InstanceColouring, Kernel
from reference_models.parts.slots.posterior import begin_surely, posterior_normal, raw_posterior_scale
from reference_models.parts.slots.slot_attention import First, SlotAttention
from reference_models.parts.slots.unet import UNet, normalised_conv


class SlotEncoder(nn.Module, ABC):
    """q(z | x) for any number of slots, and the masks that the slots attend to."""

    @abstractmethod
    def forward(self, images: Tensor, noise: Tensor, slots: int) -> tuple[Independent, Tensor]:
        """Return the posterior, batch ``[B, K]``, and log masks ``[B, K, H, W]``.

        Args:
            images: ``[B, C, H, W]`` in [0, 1].
            noise: As `noise_form` says.
            slots: K.
        """

    @abstractmethod
    def noise_form(self, slots: int) -> tuple[Any, tuple[int, ...]]:
        """Return what the noise of one image is: `torch.rand` or `torch.randn`, and its shape."""

    @property
    @abstractmethod
    def output(self) -> nn.Linear:
        """The layer that says the posterior: ``[2 D]``, means first."""

    @abstractmethod
    def raw_scale(self, sd: float) -> float:
        """Return what `output` says for a standard deviation."""

    def begin_surely(self, gain: float, sd: float) -> None:
        """See `posterior.begin_surely`: ``sd`` is the first standard deviation of all slots."""
        begin_surely(self.output, gain, self.raw_scale(sd))


class ColouringEncoder(SlotEncoder):
    """Cluster the pixels, then read each slot's features (Engelcke et al., 2021, sec. 3).

    Slots come in random order: the noise picks their seeds.

    Args:
        image_shape: ``(H, W, C)``.
        slot_size: D.
        width: Channels of the features, a multiple of 8.
        slots: That the clusters' first width is made for.
        colours: Size of a pixel's colour.
        kernel: See `InstanceColouring`.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        slot_size: int,
        width: int,
        slots: int,
        colours: int,
        kernel: Kernel,
    ) -> None:
        super().__init__()
        self.image_size = image_shape[:2]
        self.unet = UNet(image_shape[2], *image_shape[:2], width)
        self.cluster = normalised_conv(width, width)
        self.colouring = InstanceColouring(width, slots, colours, kernel)
        self.features = normalised_conv(width, width)
        self.gather = nn.Linear(width, 2 * slot_size)
        self.head = nn.Sequential(
            nn.LayerNorm(2 * slot_size),
            nn.Linear(2 * slot_size, 2 * slot_size),
            nn.ReLU(),
            nn.Linear(2 * slot_size, 2 * slot_size),
        )

    def forward(self, images: Tensor, noise: Tensor, slots: int) -> tuple[Independent, Tensor]:
        """See `SlotEncoder`."""
        seen = self.unet(images)
        log_masks = self.colouring(self.cluster(seen), noise, slots)  # [B, K, H, W]
        return self.read(self.features(seen), log_masks), log_masks

    @full_precision
    def read(self, features: Tensor, log_masks: Tensor) -> Independent:
        """Return the posterior of each slot from ``features [B, width, H, W]`` and ``log_masks [B, K, H, W]``."""
        return posterior_normal(self.head(self.pool(features, log_masks)))

    def pool(self, features: Tensor, log_masks: Tensor) -> Tensor:
        """Return the mean over each slot's pixels of a linear map of their features: ``[B, K, 2 D]``.

        Means and linear maps commute: the map is applied to K means, not to all pixels.

        Args:
            features: ``[B, width, H, W]``.
            log_masks: ``[B, K, H, W]``.
        """
        masks = log_masks.flatten(2).exp()  # [B, K, P]
        share = 1 / (masks.sum(-1, keepdim=True) + 1e-5)  # an empty slot has features near 0, not NaN
        means = masks @ features.flatten(2).mT * share  # [B, K, width]
        bias = self.gather.bias * masks.sum(-1, keepdim=True) * share
        return linear(means, self.gather.weight) + bias

    def noise_form(self, slots: int) -> tuple[Any, tuple[int, ...]]:
        """See `SlotEncoder`."""
        return torch.rand, self.image_size

    @property
    def output(self) -> nn.Linear:
        """See `SlotEncoder`."""
        return output_layer(self.head)

    def raw_scale(self, sd: float) -> float:
        """See `SlotEncoder`."""
        return raw_posterior_scale(sd)


class AttentionEncoder(SlotEncoder):
    """Slot Attention on GENESIS-v2's U-Net, whose features are told their places (SRI, sec. 5.2, and its code).

    Args:
        image_shape: ``(H, W, C)``.
        slot_size: D.
        width: Channels of the features, a multiple of 8.
        slots: K.
        first: See `SlotAttention`; slots that begin at their own normals have a fixed order and number.
        rounds: Of attention.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        slot_size: int,
        width: int,
        slots: int,
        first: First,
        rounds: int,
    ) -> None:
        super().__init__()
        self.slot_size = slot_size
        self.unet = UNet(image_shape[2], *image_shape[:2], width)
        self.place = nn.Conv2d(2, width, 1)
        self.attention = SlotAttention(width, slot_size, slots, first, rounds)
        self.head = nn.Sequential(nn.LayerNorm(slot_size), *mlp(slot_size, [2 * slot_size], 2 * slot_size))

    def forward(self, images: Tensor, noise: Tensor, slots: int) -> tuple[Independent, Tensor]:
        """See `SlotEncoder`."""
        height, width = images.shape[-2:]
        seen = self.unet(images) + self.place(coordinates(height, width, images)[None])
        found, log_masks = self.attention(seen.flatten(2).mT, noise)
        return self.read(found), log_masks.unflatten(-1, (height, width))

    def noise_form(self, slots: int) -> tuple[Any, tuple[int, ...]]:
        """See `SlotEncoder`."""
        return torch.randn, (slots, self.slot_size)

    @property
    def output(self) -> nn.Linear:
        """See `SlotEncoder`."""
        return output_layer(self.head)

    def raw_scale(self, sd: float) -> float:
        """See `SlotEncoder`."""
        return raw_posterior_scale(sd)

    @full_precision
    def read(self, found: Tensor) -> Independent:
        """Return the posterior of slots ``found [B, K, D]``."""
        return posterior_normal(self.head(found))
