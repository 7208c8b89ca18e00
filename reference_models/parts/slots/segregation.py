"""What SRI asks of a slot VAE that it takes as its first stage ("segregate").

GENESIS-v2, EfficientMORL and the Slot Attention VAE are such models by themselves; as a first stage their slots
are independent a priori, N(0, I).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from reference_models.base import Loss, SceneModel
from reference_models.parts.slots.likelihood import SlotLikelihood


@dataclass(frozen=True)
class Segregated:
    """What a first stage finds in B images.

    Attributes:
        posterior: q(z_k | x) of the slots in no particular order; diagonal normal, batch ``[B, K]``.
        z: Its sample, ``[B, K, D]``.
        loss: The first stage's own training loss, balanced by its own GECO.
    """

    posterior: Independent
    z: Tensor
    loss: Loss


class SegregationModel(SceneModel, ABC):
    """A slot VAE that can be SRI's first stage.

    It is built with an independent prior where ``config.independent_prior`` is true (SRI, A.4.1). Its state that
    is not learnt by gradient changes in `after_step`, which SRI calls with the means of `Segregated.loss`'s terms.

    Attributes:
        slot_size: D.
        likelihood: Which SRI's own decoder is scored with, too.
    """

    slot_size: int
    likelihood: SlotLikelihood

    @abstractmethod
    def segregate(self, images: Tensor, noise: Any) -> Segregated:
        """Return slots and training loss; a pure function of its arguments and the buffers.

        Args:
            images: Float ``[B, C, H, W]`` in [0, 1].
            noise: As `draw` returns it.
        """

    @abstractmethod
    def posterior(self, images: Tensor, noise: Any) -> Independent:
        """Return q(z | x) alone, batch ``[B, K]``, without the loss's work; arguments as `segregate`'s."""

    @abstractmethod
    def build_decoder(self) -> nn.Module:
        """Return a new decoder like the model's own: z ``[B, K, D]`` -> colours and mask logits.

        Colours are ``[B, K, C, H, W]`` in [0, 1], mask logits ``[B, K, 1, H, W]``.
        """

    @abstractmethod
    def fixed_noise(self, images: Tensor) -> Any:
        """Return noise like `draw`'s that each image of uint8 ``images [B, H, W, C]`` alone decides.

        See `reference_models.base.noise_of`.
        """


def uniform_of(normal: Tensor) -> Tensor:
    """Turn standard normal noise into uniform noise in (0, 1) of the same shape."""
    return torch.special.ndtr(normal)


def draw(kind: Any, shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Draw noise of ``kind`` (`torch.randn` or `torch.rand`), with the type and device of ``like``."""
    noise: Tensor = kind(shape, generator=generator, device=generator.device, dtype=like.dtype)
    return noise.to(like.device)
