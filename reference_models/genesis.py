"""GENESIS: Generative Scene Inference and Sampling (Engelcke et al., ICLR 2020).

An image is K slots. A slot is *where* it is (a mask, from a latent that depends on those of the slots before) and
*what* it looks like (a component: colours, from a latent that depends on the mask's). Masks break a stick at every
pixel: each slot takes a share of what those before have left. The prior is autoregressive as well, so that whole
scenes can be drawn from it. GENESIS-S (``two_stage=false``) has one latent a slot for both.

Letters: B images, K slots, D latent size, H W C pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from multiobj_data.scenes import Prediction
from reference_models.base import ImageShape, Loss, noise_of
from reference_models.genesis_settings import GenesisConfig
from reference_models.parts.nets import mlp
from reference_models.parts.noise import draw
from reference_models.parts.objects.evidence import Latent
from reference_models.parts.precision import full_precision
from reference_models.parts.slots.answers import AT_ONCE, in_parts, slot_prediction
from reference_models.parts.slots.components import ComponentDecoder, ComponentEncoder
from reference_models.parts.slots.gated_convs import GatedDecoder, GatedEncoder
from reference_models.parts.slots.geco import balanced
from reference_models.parts.slots.prior import bounded_normal
from reference_models.parts.slots.sequential_attention import (
    SequentialPosterior,
    sampled,
    stick_breaking_masks,
)
from reference_models.slot_vae import SlotVAE


class Noise(NamedTuple):
    """All that a step draws, standard normal; zeros give the means. Empty is what the settings leave out."""

    masks: Tensor  # [B, K, slot_size]
    components: Tensor  # [B, K, component_size]
    scene: Tensor  # [B, scene_size]


@dataclass(frozen=True)
class Found:
    """What is seen in B images, with one sample of each latent."""

    masks: Latent  # [B, K, slot_size]
    components: Latent | None  # [B, K, component_size]
    scene: Latent | None  # [B, scene_size]
    log_masks: Tensor  # [B, K, 1, H, W]
    colours: Tensor  # [B, K, C, H, W]


class Genesis(SlotVAE):
    """GENESIS, in two stages or in one (GENESIS-S), with or without SRI's scene variable.

    Batch normalisation, as the authors have it, makes a training step a function of its whole batch (of a process's
    own share, where several train); answers and samples use its running averages, and depend on their image or
    noise alone.

    Differs from the paper's code: KLs are analytic given the slots before, unless ``analytic_kl`` is unset; the
    means of the prior pass through tanh in `sample` as they do in training, where the code's ``sample`` leaves that
    out and so draws other scenes than it has learnt; log masks below -14 look alike to the component encoder.

    Args:
        config: Settings.
        image_shape: ``(H, W, C)``; H and W are multiples of the product of ``config.strides``.

    Raises:
        UsageError: The decoder cannot make such images, or GECO's goal cannot be met.
    """

    config_type = GenesisConfig
    config: GenesisConfig

    def __init__(self, config: GenesisConfig, image_shape: ImageShape) -> None:
        super().__init__(config, image_shape)
        c, channels, grid = config, image_shape[2], config.grid(image_shape)
        self.likelihood, self.density = c.build_likelihood(), c.build_density()
        self.geco = c.build_geco(image_shape)
        self.read = GatedEncoder(channels, c.encoder_widths, c.strides, grid, c.features)
        self.attend = SequentialPosterior(c.features, c.slot_size, c.attention_size)
        self.mask_logits = GatedDecoder(c.slot_size, 2 * c.width, c.decoder_widths, c.strides[::-1], grid)
        self.prior, self.scene_encoder = c.build_prior(), c.build_scene_encoder()
        self.scene_size = c.scene_size if c.scene_variable else 0
        self.describe: ComponentEncoder | None = None
        self.expect: nn.Sequential | None = None
        if c.two_stage:
            self.describe = ComponentEncoder(image_shape, c.width, c.component_hidden, c.component_size)
            self.expect = mlp(c.slot_size, [c.component_hidden] * 2, 2 * c.component_size, nn.ELU)
        self.paint = ComponentDecoder(image_shape, c.component_size if c.two_stage else c.slot_size, c.width)
        for posterior in (self.attend, self.describe):
            if posterior is not None and c.first_sd is not None:
                posterior.begin_surely(c.first_mean_gain, c.first_sd)

    # --- inference ------------------------------------------------------------------------------------

    def infer(self, images: Tensor, noise: Noise) -> Found:
        """Return masks and components of float ``images [B, C, H, W]`` in [0, 1]."""
        q, z = self.attend(self.read(images), noise.masks)
        log_masks = self.masks(z)
        components = self._describe(images, log_masks, z, noise.components)
        code = z if components is None else components.z
        scene = self._relate(z if components is None else torch.cat([z, code], dim=-1), noise.scene)
        p = self.prior(z, None if scene is None else scene.z)
        return Found(Latent(q, z, p), components, scene, log_masks, self.paint(code))

    def _describe(self, images: Tensor, log_masks: Tensor, z: Tensor, noise: Tensor) -> Latent | None:
        if self.describe is None or self.expect is None:
            return None
        q = self.describe(images, log_masks)
        return Latent(q, sampled(q, noise), _expected(z, self.expect))

    def _relate(self, code: Tensor, noise: Tensor) -> Latent | None:
        if self.scene_encoder is None:
            return None
        q = self.scene_encoder(code)
        return Latent(q, sampled(q, noise))

    def masks(self, z: Tensor) -> Tensor:
        """Return log masks ``[B, K, 1, H, W]`` of ``z [B, K, slot_size]``, in their order."""
        logits: Tensor = self.mask_logits(z.flatten(0, 1))  # [B K, 1, H, W]
        return stick_breaking_masks(logits.unflatten(0, z.shape[:2]))

    # --- learning -------------------------------------------------------------------------------------

    def draw(self, n: int, generator: torch.Generator) -> Noise:
        """Draw the noise of one training step on ``n`` images."""
        return self._noise(n, generator, self.config.slots)

    def objective(self, images: Tensor, noise: Noise) -> Loss:
        """Return the negative ELBO in nats, balanced by GECO.

        Args:
            images: Float ``[B, C, H, W]`` in [0, 1].
            noise: See `Noise`.
        """
        found = self.infer(images, noise)
        return balanced(self.geco, "nll", self._error(images, found), self.kls(found))

    def kls(self, found: Found) -> dict[str, Tensor]:
        """Return what the latents cost, by name, each ``[B]`` in nats; exact given the slots before, or sampled."""
        latents = {"kl_mask": found.masks, "kl_component": found.components, "kl_scene": found.scene}
        costs = {name: self._kl(latent) for name, latent in latents.items() if latent is not None}
        # The scene variable is drawn after the masks, of which it knows: then their analytic KL has another mean.
        if found.scene is not None:
            costs["kl_mask"] = found.masks.log_ratio()
        return {name: cost if cost.dim() == 1 else cost.sum(1) for name, cost in costs.items()}

    def _kl(self, latent: Latent) -> Tensor:
        return latent.kl() if self.config.analytic_kl else latent.log_ratio()

    def _error(self, images: Tensor, found: Found) -> Tensor:
        return -self.likelihood(images, found.colours, found.log_masks)

    # --- answering ------------------------------------------------------------------------------------

    def predict_batch(self, images: Tensor) -> Prediction:
        """Answer from the posterior means; the ELBO is that of one sample, keyed by the image."""
        parts = [self._answer(part) for part in images.split(AT_ONCE)]
        colours, log_masks, codes, bound = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return slot_prediction(colours, log_masks, codes, bound, f"elbo; {self.density.facts}")

    def _answer(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x = self.as_float(images)
        noise = self._fixed_noise(images)
        drawn = self.infer(x, noise)
        mean = self.infer(x, Noise(*map(torch.zeros_like, noise)))
        codes = [latent.z for latent in (mean.masks, mean.components) if latent is not None]
        bound = self.density(x, drawn.colours, drawn.log_masks) - torch.stack(
            [*self.kls(drawn).values()]
        ).sum(0)
        return mean.colours, mean.log_masks, torch.cat(codes, dim=-1), bound

    def _draw_slots(
        self, n: int, generator: torch.Generator, slots: int | None, temperature: float, scene: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        noise = self._noise(n, generator, slots or self.config.slots)
        masks, components, s = (temperature * part for part in noise)
        _, z = self.prior.rollout(masks, (s if scene is None else scene) if self.scene_size else None)
        code = z if self.expect is None else sampled(_expected(z, self.expect), components)
        return in_parts(
            lambda both: (self.paint(both[..., z.shape[-1] :]), self.masks(both[..., : z.shape[-1]])),
            torch.cat([z, code], dim=-1),
        )

    def _noise(self, n: int, generator: torch.Generator, slots: int) -> Noise:
        like = next(self.parameters())
        return Noise(
            *(draw(torch.randn, (n, *shape), generator, like) for shape in self._noise_shapes(slots))
        )

    def _fixed_noise(self, images: Tensor) -> Noise:
        """Return noise like `draw`'s that each of uint8 ``images [B, H, W, C]`` alone decides."""
        shapes = self._noise_shapes(self.config.slots)
        sizes = [torch.Size(shape).numel() for shape in shapes]
        parts = noise_of(images, (sum(sizes),), like=next(self.parameters())).split(sizes, dim=1)
        return Noise(*(part.unflatten(1, shape) for shape, part in zip(shapes, parts, strict=True)))

    def _noise_shapes(self, slots: int) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of one image's noise, in the order of `Noise`."""
        c = self.config
        return (
            (slots, c.slot_size),
            (slots, c.component_size * c.two_stage),
            (self.scene_size,),
        )


@full_precision
def _expected(z: Tensor, read: nn.Module) -> Independent:
    """Return what to expect of the components of masks' latents ``z [B, K, slot_size]``."""
    return bounded_normal(read(z))
