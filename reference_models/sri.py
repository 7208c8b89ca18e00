"""SRI: Segregate, Relate, Imagine (Emami, He, Ranka & Rangarajan, 2022): slots in an order worth generating.

A scene variable s says what the slots are together, and an autoregressive prior p(z_k | z_<k, s) makes them in an
order of its own. Inference goes three steps: *segregate* the image into slots in random order by any slot VAE;
*relate* them to infer s, blind to their order; *imagine* a scene by rolling out the prior given s, and take the
order of the imagined slots by matching the segregated ones to them.

The first stage trains by its own loss alone: nothing of what follows has a gradient into it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Independent, kl_divergence
from torch.nn.functional import gelu

from multiobj_data.scenes import Prediction
from reference_models.base import ImageShape, Loss, noise_of
from reference_models.parts.nets import diagonal_normal, kl_to_standard_normal
from reference_models.parts.noise import draw
from reference_models.parts.precision import full_precision
from reference_models.parts.recurrent import shifted
from reference_models.parts.slots.answers import in_parts, slot_prediction
from reference_models.parts.slots.broadcast import masked
from reference_models.parts.slots.geco import balanced
from reference_models.parts.slots.likelihood import blend
from reference_models.parts.slots.order import greedy_order, reordered
from reference_models.parts.slots.prior import SlotLSTM, SlotPrior, softplus_scale
from reference_models.parts.slots.scene_encoder import SceneEncoder
from reference_models.slot_vae import SlotVAE
from reference_models.sri_settings import SRIConfig

STAGE = "segregation_"
"""What the names of the first stage's loss terms begin with."""


class Noise(NamedTuple):
    """All that a training step draws: the first stage's noise, and standard normals."""

    segregation: object
    scene: Tensor  # [B, scene_size]
    rollout: Tensor  # [B, K, D]
    z: Tensor  # [B, K, D]


@dataclass(frozen=True)
class Inferred:
    """What the second and third step find.

    Attributes:
        q: q(z_k | z_<k, s, x), slots in the order of the rollout; batch ``[B, K]``.
        scene: s ``[B, scene_size]``, and q(s | x); ``None`` without a scene variable.
        q_scene: See ``scene``.
        imagined: What the rollout expected of each slot, batch ``[B, K]``; ``None`` where nothing was imagined.
    """

    q: Independent
    scene: Tensor | None
    q_scene: Independent | None
    imagined: Independent | None


class SlotPosterior(nn.Module):
    """q(z_k | z_<k, s, x): the first stage's means, with scales by what came before (SRI, eq. 7).

    Args:
        slot_size: D.
        scene_size: Size of s; 0: none, and the first input is 0.
        size: Of the LSTM's state.
    """

    def __init__(self, slot_size: int, scene_size: int, size: int) -> None:
        super().__init__()
        self.embed = nn.Linear(scene_size, slot_size) if scene_size else None
        self.lstm = SlotLSTM(slot_size, size)
        self.read = nn.Linear(size, slot_size)

    @full_precision
    def forward(self, means: Tensor, scene: Tensor | None) -> Independent:
        """Return the posterior, batch ``[B, K]``, for ordered ``means [B, K, D]`` and ``scene [B, scene_size]``."""
        first = torch.zeros_like(means[:, 0]) if self.embed is None else gelu(self.embed(scene))
        return diagonal_normal(means, softplus_scale(self.read(self.lstm(shifted(first, means)))))


class SRI(SlotVAE):
    """SRI over the first stage that the settings name.

    ``likelihood=gaussian`` is SRI-G, ``mixture`` SRI-MoG, ``segregation=emorl`` SRI-EMORL.

    Differs from the paper, as the released code does: the second decoder is not the first stage's.

    Args:
        config: Settings.
        image_shape: ``(H, W, C)``, as the first stage can make it.

    Raises:
        UsageError: As the first stage, or GECO's goal cannot be met.
    """

    config_type = SRIConfig
    config: SRIConfig

    def __init__(self, config: SRIConfig, image_shape: ImageShape) -> None:
        super().__init__(config, image_shape)
        self.segregation = config.build_segregation(image_shape)
        self.slots, self.slot_size = self.segregation.config.slots, self.segregation.slot_size
        self.likelihood, self.density = config.build_likelihood(), config.build_density()
        self.geco = config.build_geco(image_shape)
        self.scene_size = size = config.scene_size if config.scene_variable else 0
        self.scene_encoder = SceneEncoder(self.slot_size, size, config.scene_layers) if size else None
        self.prior = SlotPrior(self.slot_size, size, "sri", config.lstm_size)
        self.posterior = SlotPosterior(self.slot_size, size, config.lstm_size)
        self.decoder = self.segregation.build_decoder()
        self._initialise()

    def _initialise(self) -> None:
        for part in (self.scene_encoder, self.prior, self.posterior):
            for layer in [] if part is None else part.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_normal_(layer.weight, self.config.first_gain)
                    if layer.bias is not None:
                        nn.init.zeros_(layer.bias)

    @property
    def training_step(self) -> int:
        """The step that the training loop is at: the first stage's, too."""
        return self.segregation.training_step

    @training_step.setter
    def training_step(self, step: int) -> None:
        self.segregation.training_step = step

    # --- learning -------------------------------------------------------------------------------------

    def draw(self, n: int, generator: torch.Generator) -> Noise:
        """Draw the noise of one training step on ``n`` images."""
        like = next(self.parameters())
        slots = (n, self.slots, self.slot_size)
        return Noise(
            segregation=self.segregation.draw(n, generator),
            scene=draw(torch.randn, (n, self.config.scene_size), generator, like),
            rollout=draw(torch.randn, slots, generator, like),
            z=draw(torch.randn, slots, generator, like),
        )

    def objective(self, images: Tensor, noise: Noise) -> Loss:
        """Return the first stage's loss plus SRI's own (eqs. 11 and 12), each balanced by a GECO of its own.

        Args:
            images: Float ``[B, C, H, W]`` in [0, 1].
            noise: See `Noise`.
        """
        stage = self.segregation.segregate(images, noise.segregation)
        found = self.infer(stage.posterior.mean.detach(), stage.z.detach(), noise)
        z = torch.addcmul(found.q.mean, found.q.stddev, noise.z)
        error = -self.likelihood(images, *self.decode(z))
        return _renamed(stage.loss, STAGE) + balanced(self.geco, "nll", error, self.kls(found, z))

    def infer(self, means: Tensor, z: Tensor, noise: Noise) -> Inferred:
        """Relate and imagine: bring the first stage's slots into an order, and their scales up to date.

        Args:
            means: Of the first stage's posterior, ``[B, K, D]``, in any order.
            z: Its sample, from which s is inferred.
            noise: Of the scene and of the rollout.
        """
        q_scene = None if self.scene_encoder is None else self.scene_encoder(z)  # eq. 5
        scene = None if q_scene is None else torch.addcmul(q_scene.mean, q_scene.stddev, noise.scene)
        imagined = None
        if self.config.align:
            imagined, _ = self.prior.rollout(noise.rollout, scene)  # eq. 6
            means = reordered(means, greedy_order(imagined.mean, means))  # algorithm 1
        return Inferred(self.posterior(means, scene), scene, q_scene, imagined)

    def kls(self, found: Inferred, z: Tensor) -> dict[str, Tensor]:
        """Return what the latents cost, by name, each ``[B]`` in nats.

        Args:
            found: The posteriors.
            z: Sample of the slots, ``[B, K, D]``.
        """
        kls = {} if found.q_scene is None else {"kl_scene": kl_to_standard_normal(found.q_scene)}  # eq. 10
        kls["kl_slot"] = kl_divergence(found.q, self.prior(z, found.scene)).sum(1)  # eq. 23
        if self.config.cross_loss and found.imagined is not None:
            kls["kl_rollout"] = kl_divergence(found.q, found.imagined).sum(1)  # eqs. 8 and 29
        return kls

    def after_step(self, means: Mapping[str, Tensor]) -> None:
        """Let both GECOs follow the errors of the step just done."""
        self.segregation.after_step(
            {name.removeprefix(STAGE): mean for name, mean in means.items() if name.startswith(STAGE)}
        )
        super().after_step(means)

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return colours ``[B, K, C, H, W]`` and log masks ``[B, K, 1, H, W]`` of ``z [B, K, D]``."""
        return masked(self.decoder(z))

    # --- answering ------------------------------------------------------------------------------------

    def predict_batch(self, images: Tensor) -> Prediction:
        """Answer from means, slots in the order of the rollout; the ELBO is of one sample, keyed by the image.

        ``kl_rollout`` is no part of the ELBO: it only loosens the bound (SRI A.3).
        """
        x = self.as_float(images)
        noise, e = self.fixed_noise(images)
        stage = self.segregation.posterior(x, noise.segregation)
        calm = Noise(None, *(torch.zeros_like(part) for part in (noise.scene, noise.rollout, noise.z)))
        answer = self.infer(stage.mean, stage.mean, calm).q.mean
        found = self.infer(stage.mean, torch.addcmul(stage.mean, stage.stddev, e), noise)
        z = torch.addcmul(found.q.mean, found.q.stddev, noise.z)
        kls = self.kls(found, z)
        kls.pop("kl_rollout", None)
        return slot_prediction(
            *in_parts(self.decode, answer),
            slots=answer,
            log_likelihood=self.density(x, *in_parts(self.decode, z)) - torch.stack([*kls.values()]).sum(0),
            likelihood_kind=f"elbo; {self.density.facts}",
        )

    def fixed_noise(self, images: Tensor) -> tuple[Noise, Tensor]:
        """Return the noise that each image of uint8 ``images [B, H, W, C]`` alone decides.

        Returns:
            As `draw`, and the noise of the first stage's sample, ``[B, K, D]``.
        """
        # Keyed by the negative: the image itself is the key of the first stage's noise.
        scene_size, slots = self.config.scene_size, self.slots * self.slot_size
        noise = noise_of(255 - images, (scene_size + 3 * slots,), like=next(self.parameters()))
        scene, *normals = noise.split([scene_size, slots, slots, slots], dim=-1)
        rollout, z, e = (normal.unflatten(-1, (self.slots, self.slot_size)) for normal in normals)
        return Noise(self.segregation.fixed_noise(images), scene, rollout, z), e

    @torch.no_grad()
    def imagine(self, images: Tensor) -> Tensor:
        """Draw what the model imagines, given only what it made of each image's scene: the rollout of means.

        Where s tells what is in the image, this resembles the image; its order is the one that slots are brought into.

        Args:
            images: uint8 ``[B, H, W, C]``.

        Returns:
            float ``[B, H, W, C]`` in [0, 1].
        """
        stage = self.segregation.posterior(self.as_float(images), self.fixed_noise(images)[0].segregation)
        scene = None if self.scene_encoder is None else self.scene_encoder(stage.mean).mean
        _, z = self.prior.rollout(torch.zeros_like(stage.mean), scene)
        return blend(*in_parts(self.decode, z)).clamp(0, 1).movedim(1, -1)

    def _draw_slots(
        self, n: int, generator: torch.Generator, slots: int | None, temperature: float, scene: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        like = next(self.parameters())
        noise = draw(torch.randn, (n, slots or self.slots, self.slot_size), generator, like)
        if self.scene_size and scene is None:
            scene = temperature * draw(torch.randn, (n, self.scene_size), generator, like)
        return in_parts(self.decode, self.prior.rollout(noise, scene, temperature)[1])


def _renamed(loss: Loss, prefix: str) -> Loss:
    """Return the loss with ``prefix`` before the names of its terms."""
    return Loss(
        {prefix + name: term for name, term in loss.terms.items()},
        {prefix + name: weight for name, weight in loss.weights.items()},
    )
