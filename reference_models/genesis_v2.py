"""GENESIS-v2 (Engelcke, Parker Jones & Posner, NeurIPS 2021): slots by clustering pixels.

An encoder colours the pixels and clusters them into slots (`parts.slots.colouring`); each slot's features become the
posterior of its code, and a broadcast decoder paints all codes at once. The prior is autoregressive over slots,
though they come in random order; with a scene variable, it may know the whole scene first (SRI, Table 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Independent, kl_divergence

from multiobj_data.errors import UsageError
from multiobj_data.scenes import Prediction
from reference_models.base import ImageShape, Loss, noise_of
from reference_models.parts.nets import kl_to_standard_normal, standard_normal_log_density
from reference_models.parts.noise import draw, uniform_of
from reference_models.parts.slots.answers import in_parts, slot_prediction
from reference_models.parts.slots.broadcast import UPSAMPLING, BroadcastDecoder, masked
from reference_models.parts.slots.colouring import Kernel
from reference_models.parts.slots.encoders import AttentionEncoder, ColouringEncoder, SlotEncoder
from reference_models.parts.slots.geco import balanced
from reference_models.parts.slots.slot_attention import First
from reference_models.slot_vae import Segregated, SegregationModel
from reference_models.slot_vae_settings import AutoregressiveConfig, require_multiple


@dataclass(frozen=True, kw_only=True)
class GenesisV2Config(AutoregressiveConfig):
    """Settings of `GenesisV2`. "Code" is the released one.

    Attributes:
        width: Channels of encoder and decoder; a multiple of 8.
        grouping: How pixels are gathered into slots.
        colours: Size of a pixel's colour, by which it is grouped.
        kernel: How far a seed's colour reaches.
        first_slots: Of slot-attention: one distribution for all slots, or a place for each.
        rounds: Of slot-attention: how often slots and pixels are matched.
        independent_prior: Slots independent a priori, as SRI's first stage.
    """

    about: ClassVar[str] = "genesis-v2"

    width: int = 64  # code: channels of encoder and decoder; a multiple of 8
    # Slots
    grouping: Literal["colouring", "slot-attention"] = "colouring"  # slot-attention: for SRI-SA*
    colours: int = 8  # code: size of a pixel's colour
    kernel: Kernel = "gaussian"  # code
    first_slots: First = "shared"  # of slot-attention; per-slot: SRI-SA*
    rounds: int = 3  # of slot-attention: Locatello et al. 2020
    independent_prior: bool = False  # true: N(0, I), as first stage of SRI

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("width", "slot_size"):
            if getattr(self, name) % 8:
                raise UsageError(
                    f"{self.about}: {name} must be a multiple of 8, the groups that are normalised together, "
                    f"got {getattr(self, name)}."
                )
        if self.colours < 2:
            raise UsageError(f"{self.about}: colours must be at least 2, a position, got {self.colours}.")
        if self.scene_variable and self.independent_prior:
            raise UsageError(
                f"{self.about}: an independent_prior has no use for a scene_variable; unset one."
            )

    def build_encoder(self, image_shape: ImageShape) -> SlotEncoder:
        """Return q(z | x)."""
        encoder = self._encoder(image_shape)
        if self.first_sd is not None:
            encoder.begin_surely(self.first_mean_gain, self.first_sd)
        return encoder

    def _encoder(self, image_shape: ImageShape) -> SlotEncoder:
        if self.grouping == "colouring":
            return ColouringEncoder(
                image_shape, self.slot_size, self.width, self.slots, self.colours, self.kernel
            )
        return AttentionEncoder(
            image_shape, self.slot_size, self.width, self.slots, self.first_slots, self.rounds
        )


class Noise(NamedTuple):
    """All that a training step draws."""

    grouping: Tensor  # [B, H, W], uniform, or [B, K, D], standard normal: what the encoder asks for
    z: Tensor  # [B, K, D], standard normal
    scene: Tensor | None  # [B, scene_size], standard normal


class GenesisV2(SegregationModel):
    """GENESIS-v2.

    Differs from the paper: KLs are analytic given the slots before, unless ``analytic_kl`` is unset.

    Args:
        config: Settings.
        image_shape: ``(H, W, C)``; H and W are multiples of 16.

    Raises:
        UsageError: The decoder cannot make such images, or GECO's goal cannot be met.
    """

    config_type = GenesisV2Config
    config: GenesisV2Config

    def __init__(self, config: GenesisV2Config, image_shape: ImageShape) -> None:
        super().__init__(config, image_shape)
        require_multiple(config.about, image_shape, UPSAMPLING, least=UPSAMPLING)
        self.slot_size = config.slot_size
        self.likelihood, self.density = config.build_likelihood(), config.build_density()
        self.geco = config.build_geco(image_shape)
        self.encoder = config.build_encoder(image_shape)
        self.decoder = self.build_decoder()
        self.prior = None if config.independent_prior else config.build_prior()
        self.scene_encoder = config.build_scene_encoder()
        self.scene_size = config.scene_size if config.scene_variable else 0

    def build_decoder(self) -> nn.Module:
        """See `SegregationModel`."""
        return BroadcastDecoder(self.slot_size, self.image_shape, self.config.width)

    # --- learning -------------------------------------------------------------------------------------

    def draw(self, n: int, generator: torch.Generator) -> Noise:
        """Draw the noise of one training step on ``n`` images."""
        c = self.config
        like = next(self.parameters())
        kind, shape = self.encoder.noise_form(c.slots)
        return Noise(
            grouping=draw(kind, (n, *shape), generator, like),
            z=draw(torch.randn, (n, c.slots, c.slot_size), generator, like),
            scene=draw(torch.randn, (n, c.scene_size), generator, like) if c.scene_variable else None,
        )

    def objective(self, images: Tensor, noise: Noise) -> Loss:
        """Return the negative ELBO in nats, balanced by GECO.

        Args:
            images: Float ``[B, C, H, W]`` in [0, 1].
            noise: See `Noise`.
        """
        return self.segregate(images, noise).loss

    def segregate(self, images: Tensor, noise: Noise) -> Segregated:
        """See `SegregationModel`."""
        q = self.posterior(images, noise)
        z = torch.addcmul(q.mean, q.stddev, noise.z)
        error = -self.likelihood(images, *self.decode(z))
        return Segregated(q, z, balanced(self.geco, "nll", error, self.kls(q, z, noise.scene)))

    def posterior(self, images: Tensor, noise: Noise) -> Independent:
        """See `SegregationModel`."""
        return self.encoder(images, noise.grouping, noise.z.shape[1])[0]

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return colours ``[B, K, C, H, W]`` and log masks ``[B, K, 1, H, W]`` of ``z [B, K, D]``."""
        return masked(self.decoder(z))

    def kls(self, q: Independent, z: Tensor, scene_noise: Tensor | None) -> dict[str, Tensor]:
        """Return what the latents cost, by name, each ``[B]`` in nats.

        Args:
            q: Posterior of the slots, batch ``[B, K]``.
            z: Its sample ``[B, K, D]``.
            scene_noise: Standard normal ``[B, scene_size]``, where there is a scene variable.
        """
        if self.scene_encoder is None or scene_noise is None:
            return {"kl_slot": self._kl_slots(q, z, None)}
        q_scene = self.scene_encoder(z)
        scene = torch.addcmul(q_scene.mean, q_scene.stddev, scene_noise)
        return {"kl_scene": kl_to_standard_normal(q_scene), "kl_slot": self._kl_slots(q, z, scene)}

    def _kl_slots(self, q: Independent, z: Tensor, scene: Tensor | None) -> Tensor:
        p = None if self.prior is None else self.prior(z, scene)
        # The scene variable is drawn after z, of which it knows: then the analytic KL has another mean.
        if self.config.analytic_kl and scene is None:
            each = kl_to_standard_normal(q) if p is None else kl_divergence(q, p)
        else:
            each = q.log_prob(z) - (standard_normal_log_density(z) if p is None else p.log_prob(z))
        return each.sum(1)

    # --- answering ------------------------------------------------------------------------------------

    def predict_batch(self, images: Tensor) -> Prediction:
        """Answer from the posterior means; seeds and the ELBO's sample are keyed by the image."""
        x = self.as_float(images)
        noise = self.fixed_noise(images)
        q = self.posterior(x, noise)
        z = torch.addcmul(q.mean, q.stddev, noise.z)
        cost = torch.stack([*self.kls(q, z, noise.scene).values()]).sum(0)
        return slot_prediction(
            *in_parts(self.decode, q.mean),
            slots=q.mean,
            log_likelihood=self.density(x, *in_parts(self.decode, z)) - cost,
            likelihood_kind=f"elbo; {self.density.facts}",
        )

    def fixed_noise(self, images: Tensor) -> Noise:
        """See `SegregationModel`."""
        c = self.config
        kind, shape = self.encoder.noise_form(c.slots)
        sizes = [torch.Size(shape).numel(), c.slots * c.slot_size, c.scene_size]
        noise = noise_of(images, (sum(sizes),), like=next(self.parameters()))
        grouping, z, scene = noise.split(sizes, dim=-1)
        grouping = grouping.unflatten(-1, shape)
        return Noise(
            grouping=uniform_of(grouping) if kind is torch.rand else grouping,
            z=z.unflatten(-1, (c.slots, c.slot_size)),
            scene=scene if c.scene_variable else None,
        )

    def _draw_slots(
        self, n: int, generator: torch.Generator, slots: int | None, temperature: float, scene: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        c = self.config
        like = next(self.parameters())
        z = draw(torch.randn, (n, slots or c.slots, c.slot_size), generator, like)
        if self.prior is None:
            return in_parts(self.decode, temperature * z)
        if self.scene_size and scene is None:
            scene = temperature * draw(torch.randn, (n, self.scene_size), generator, like)
        return in_parts(self.decode, self.prior.rollout(z, scene, temperature)[1])
