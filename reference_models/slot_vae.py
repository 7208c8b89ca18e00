"""What all slot VAEs are: models of images as K slots, each a code that paints colours and a mask.

Some can be the first stage of SRI: GENESIS-v2, EfficientMORL and the Slot Attention VAE, models by themselves. As a
first stage their slots are independent a priori: N(0, I), or EfficientMORL's hierarchy.

Letters: B images, K slots, H W C pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from multiobj_data.errors import UsageError
from reference_models.base import Loss, SceneModel, evaluating
from reference_models.parts.slots.geco import Geco
from reference_models.parts.slots.likelihood import SlotLikelihood, blend


class SlotVAE(SceneModel, ABC):
    """A slot VAE: its error is balanced against its KLs by GECO, and it draws whole scenes slot by slot.

    Attributes:
        geco: The controller; ``None`` for a plain ELBO.
        scene_size: Size of the scene variable s that slots are drawn for; 0: there is none.
    """

    geco: Geco | None
    scene_size: int = 0

    def after_step(self, means: Mapping[str, Tensor]) -> None:
        """Let GECO follow the error of the step just done, the term ``nll``."""
        if self.geco is not None:
            self.geco.update(means["nll"])

    def sample(
        self,
        n: int,
        generator: torch.Generator,
        slots: int | None = None,
        temperature: float = 1.0,
        scene: Tensor | None = None,
    ) -> Tensor:
        """Draw ``n`` images from the model, without pixel noise.

        Args:
            n: How many.
            generator: Where the randomness comes from.
            slots: K, as in training if not given (SRI A.5).
            temperature: Factor of all standard deviations.
            scene: s ``[n, scene_size]``, drawn if not given: a walk through scenes gives each of its steps.

        Returns:
            float ``[n, H, W, C]`` in [0, 1].

        Raises:
            UsageError: No slots; a scene for a model without scene variable, or of another shape.
        """
        colours, log_masks = self.sample_slots(n, generator, slots, temperature, scene)
        return blend(colours, log_masks).clamp(0, 1).movedim(1, -1)

    @torch.no_grad()
    def sample_slots(
        self,
        n: int,
        generator: torch.Generator,
        slots: int | None = None,
        temperature: float = 1.0,
        scene: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draw colours ``[n, K, C, H, W]`` and log masks ``[n, K, 1, H, W]``; arguments and errors as `sample`'s."""
        if scene is not None and (not self.scene_size or scene.shape != (n, self.scene_size)):
            expected = (
                f"a scene [{n}, {self.scene_size}]" if self.scene_size else "none, having no scene variable"
            )
            raise UsageError(f"{type(self).__name__}.sample: expected {expected}, got {list(scene.shape)}.")
        if slots is not None and slots < 1:
            raise UsageError(f"{type(self).__name__}.sample: slots: expected 1 or more, got {slots}.")
        with evaluating(self):
            return self._draw_slots(n, generator, slots, temperature, scene)

    @abstractmethod
    def _draw_slots(
        self, n: int, generator: torch.Generator, slots: int | None, temperature: float, scene: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Do what `sample_slots` promises, in evaluation mode and without gradients."""


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


class SegregationModel(SlotVAE, ABC):
    """A slot VAE that can be SRI's first stage ("segregate").

    Of those that can have an autoregressive prior, ``config.independent_prior`` leaves it out (SRI, A.4.1). Its state
    that is not learnt by gradient changes in `after_step`, which SRI calls with the means of `Segregated.loss`'s terms.

    Attributes:
        slot_size: D.
        likelihood: What it is trained with.
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
