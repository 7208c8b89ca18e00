"""EfficientMORL: Efficient Iterative Amortized Inference (Emami et al., ICML 2021).

A scene is K slots in no order. A hierarchy of L stochastic layers of Slot Attention guesses the slots' posterior
from the image; I refinement steps correct the guess from the gradient of the loss, as IODINE does, but few of them
suffice, and they are taken away in the course of training. A broadcast decoder paints colours and a mask a slot.

Letters: B images, K slots, D latent size, L layers, I refinement steps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Independent, kl_divergence

from multiobj_data.scenes import Prediction
from reference_models.base import ImageShape, Loss, noise_of
from reference_models.emorl_settings import EfficientMORLConfig
from reference_models.parts.nets import kl_to_standard_normal
from reference_models.parts.noise import draw
from reference_models.parts.slots.answers import in_parts, slot_prediction
from reference_models.parts.slots.broadcast import masked
from reference_models.parts.slots.early_gradients import differentiated
from reference_models.parts.slots.first_attention import attend_to_places_first
from reference_models.parts.slots.hierarchy import (
    Layers,
    PixelEncoder,
    SlotHierarchy,
    SlotPriors,
    sample_slots,
)
from reference_models.parts.slots.prior import softplus_normal
from reference_models.parts.slots.refinement import Refinement
from reference_models.slot_vae import Segregated, SegregationModel

ANSWER_CHUNK = 16
"""Images that are answered at once: refining keeps what a backward pass needs."""


class Explanation(NamedTuple):
    """A posterior, a sample of it, and what that costs."""

    parameters: Tensor  # [B, K, 2 D]
    z: Tensor  # [B, K, D]
    colours: Tensor  # [B, K, C, H, W], without gradient, as the masks
    log_masks: Tensor  # [B, K, 1, H, W]
    error: Tensor  # [B], negative log likelihood
    kl: Tensor  # [B]


class Inference(NamedTuple):
    """The first guess and its refinements, and the layers that these stand on."""

    steps: list[Explanation]  # 1 + I
    layers: Layers


class EfficientMORL(SegregationModel):
    """EfficientMORL, with refinement.

    Each step's loss counts: the first most, the last least (``refinement_weights``). Its terms are those of the
    last step, which `predict` answers with, and the weighted sums of the earlier ones.

    Differs from the paper, as its code does: the gradient is normalised without learnt factors, and the steps'
    weights are the code's. Differs from the code: one sample of a layer serves the next layer and its
    neighbour's prior, where the code draws two.

    Args:
        config: Settings.
        image_shape: ``(H, W, C)``; any size with the decoders ``plain`` and ``small``, else multiples of 16.

    Raises:
        UsageError: The decoder cannot make such images, or GECO's goal can never be met.
    """

    config_type = EfficientMORLConfig
    config: EfficientMORLConfig

    def __init__(self, config: EfficientMORLConfig, image_shape: ImageShape) -> None:
        super().__init__(config, image_shape)
        height, width, channels = image_shape
        c = config
        self.slot_size = c.slot_size
        self.encoder = PixelEncoder(height, width, channels, c.encoder_channels, c.encoder_layers)
        self.hierarchy = SlotHierarchy(c.encoder_channels, c.slot_size, c.layers, c.gru_sd)
        self.priors = SlotPriors(c.slot_size, c.prior_size, c.prior, c.layers)
        self.refinement = Refinement(c.slot_size, c.refinement_size) if c.refinement_steps else None
        self.decoder = self.build_decoder()
        self.likelihood, self.density = c.build_likelihood(), c.build_density()
        self.geco = c.build_geco(image_shape)
        self._initialise()
        if c.first_attention == "places":
            attend_to_places_first(self.encoder, self.hierarchy)

    def _initialise(self) -> None:
        gain = self.config.initial_gain
        if gain is None:
            return
        learnt_otherwise = {self.encoder.project}  # in the code
        for module in self.modules():
            if (
                isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)
                and module not in learnt_otherwise
            ):
                nn.init.xavier_normal_(module.weight, gain)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def build_decoder(self) -> nn.Module:
        """See `SegregationModel`."""
        return self.config.build_decoder(self.image_shape)

    # --- inference ------------------------------------------------------------------------------------

    def infer(self, images: Tensor, noise: Tensor) -> Inference:
        """Guess the slots' posterior, and refine the guess.

        Refining takes gradients, also under `torch.no_grad`; then nothing of them is kept afterwards.

        Args:
            images: Float ``[B, C, H, W]`` in [0, 1].
            noise: Standard normal ``[B, 1 + L + I, K, D]``; see `draw`.
        """
        learning = torch.is_grad_enabled()
        layer_noise, step_noise = noise.tensor_split([1 + self.config.layers], dim=1)
        layers = self.hierarchy(self.encoder(2 * images - 1), layer_noise)
        with torch.enable_grad():
            layers = layers if learning else layers.with_leaf(layer_noise)
            steps = self._steps(images, layers, step_noise, learning)
        if not learning:
            steps = [Explanation(*(tensor.detach() for tensor in step)) for step in steps]
        return Inference(steps, layers)

    def _steps(self, images: Tensor, layers: Layers, noise: Tensor, learning: bool) -> list[Explanation]:
        refinements = noise.shape[1]
        prior = self.priors.of_refined(layers)
        kl = self.priors.kl(layers).sum(1)
        parameters, z, state = layers.parameters[-1], layers.z[-1], None
        steps: list[Explanation] = []
        for i in range(refinements + 1):
            if i:
                parameters, state = self.refine(steps[-1], state, learning)
                z = sample_slots(parameters, noise[:, i - 1])
                kl = self._kl(parameters, prior)
            decoded = self.decode(images, z, learning, wanted=learning or i < refinements)
            steps.append(Explanation(parameters, z, *decoded, kl))
        return steps

    def refine(self, step: Explanation, state: Tensor | None, learning: bool) -> tuple[Tensor, Tensor]:
        """Return better parameters ``[B, K, 2 D]`` than those of ``step``, and the refinement's next state.

        Args:
            step: What is to be improved.
            state: Of the refinement; ``None`` at first.
            learning: Whether the step is to be differentiated later on.
        """
        assert self.refinement is not None
        loss = (self._error_weight() * step.error + step.kl).sum()
        # The gradient is an input of the next step, not differentiated through: the graph is only kept.
        (gradient,) = torch.autograd.grad(loss, step.parameters, retain_graph=learning)
        with torch.set_grad_enabled(learning):
            change, state = self.refinement(step.parameters, gradient, state)
            parameters = step.parameters + change
        return parameters if learning else parameters.requires_grad_(), state

    def decode(
        self, images: Tensor, z: Tensor, learning: bool, wanted: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Paint ``z`` and compare that with the images.

        Args:
            images: Float ``[B, C, H, W]``.
            z: ``[B, K, D]``.
            learning: Whether the decoder is to have gradients.
            wanted: Whether the latents are.

        Returns:
            Colours, log masks, and the error ``[B]``, which alone has gradients.
        """

        def explain(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            colours, log_masks = self.paint(z)
            return -self.likelihood(images, colours, log_masks), colours, log_masks

        if wanted:
            learnt = [p for p in self.decoder.parameters() if p.requires_grad] if learning else []
            error, colours, log_masks = differentiated(explain, z, learnt)
        else:
            with torch.no_grad():
                error, colours, log_masks = explain(z)
        return colours, log_masks, error

    def paint(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return colours ``[B, K, C, H, W]`` and log masks ``[B, K, 1, H, W]`` of ``z [B, K, D]``."""
        return masked(self.decoder(z))

    def _kl(self, parameters: Tensor, prior: Independent | None) -> Tensor:
        q = softplus_normal(parameters)
        return (kl_to_standard_normal(q) if prior is None else kl_divergence(q, prior)).sum(-1)

    def _error_weight(self) -> Tensor | float:
        return 1.0 if self.geco is None else self.geco.weights().error

    # --- learning -------------------------------------------------------------------------------------

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw the noise of a training step on ``n`` images.

        Returns:
            Standard normal ``[n, 1 + L + I, K, D]``: of the slots' beginning, of the layers, of the refinements.
            Its size alone says how many refinements are done.
        """
        return self._normal(n, self.config.refinements_at(self.training_step), generator)

    def objective(self, images: Tensor, noise: Tensor) -> Loss:
        """Return the weighted sum of the steps' losses in nats; see the class.

        Args:
            images: Float ``[B, C, H, W]`` in [0, 1].
            noise: See `draw`.
        """
        return self._loss(self.infer(images, noise).steps)

    def _loss(self, steps: list[Explanation]) -> Loss:
        weights = self.config.step_weights(len(steps) - 1)
        last, error_weight = steps[-1], self._error_weight()
        earlier = list(zip(weights[:-1], steps[:-1], strict=True))
        zero = torch.zeros_like(last.kl)
        terms = {
            "nll": last.error,
            "kl": last.kl,
            "earlier_nll": sum((w * step.error for w, step in earlier), zero),
            "earlier_kl": sum((w * step.kl for w, step in earlier), zero),
        }
        factors: dict[str, Tensor | float] = {
            "nll": error_weight * weights[-1],
            "kl": weights[-1],
            "earlier_nll": error_weight,
        }
        if self.geco is not None:
            terms["nll_zeta"] = self.geco.weights().error.expand(len(zero))  # to be seen in the log
            factors["nll_zeta"] = 0.0
        return Loss(terms, factors)

    # --- as SRI's first stage -------------------------------------------------------------------------

    def segregate(self, images: Tensor, noise: Tensor) -> Segregated:
        """See `SegregationModel`."""
        steps = self.infer(images, noise).steps
        return Segregated(softplus_normal(steps[-1].parameters), steps[-1].z, self._loss(steps))

    def posterior(self, images: Tensor, noise: Tensor) -> Independent:
        """See `SegregationModel`."""
        with torch.no_grad():
            parts = zip(images.split(ANSWER_CHUNK), noise.split(ANSWER_CHUNK), strict=True)
            parameters = [self.infer(x, e).steps[-1].parameters for x, e in parts]
            return softplus_normal(torch.cat(parameters))

    def fixed_noise(self, images: Tensor) -> Tensor:
        """See `SegregationModel`."""
        c = self.config
        shape = (1 + c.layers + c.answer_refinements, c.slots, c.slot_size)
        return noise_of(images, shape, like=self.hierarchy.first)

    # --- answering ------------------------------------------------------------------------------------

    def predict_batch(self, images: Tensor) -> Prediction:
        """Answer with the mean of the (refined) posterior; the ELBO is that of one sample, keyed by the image."""
        parts = [self._answer(part) for part in images.split(ANSWER_CHUNK)]
        colours, log_masks, means, bound = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return slot_prediction(colours, log_masks, means, bound, f"elbo; {self.density.facts}")

    def _answer(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x = self.as_float(images)
        inferred = self.infer(x, self.fixed_noise(images))
        last = inferred.steps[-1]
        log_likelihood = self.density(x, last.colours, last.log_masks)
        mean, _ = last.parameters.chunk(2, dim=-1)
        return *self.paint(mean), mean, log_likelihood - self._cost(inferred)

    def _cost(self, inferred: Inference) -> Tensor:
        """Return what the latents of the last step cost, and those that they stand on: ``[B]`` in nats."""
        steps, layers = inferred
        costs = self.priors.cost(layers)
        if len(steps) == 1:
            return costs.sum(1)
        # Refined slots stand on the second layer if that gives their prior, else on nothing.
        stand = self.priors.of_refined(layers) is not None
        return steps[-1].kl + costs[:, 1:].sum(1) if stand else steps[-1].kl

    def _draw_slots(
        self, n: int, generator: torch.Generator, slots: int | None, temperature: float, scene: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        # Slots come from the prior of those that `predict` decodes: from the whole chain of layers if these are
        # refined and it is `reversed++`, or not refined and it is `bottom-up`.
        refined = self.config.answer_refinements > 0
        chained = self.config.prior == ("reversed++" if refined else "bottom-up")
        links = self.config.layers - 1 if chained else 0
        noise = temperature * self._normal(n, links - self.config.layers, generator, slots)
        return in_parts(self.paint, self.priors.sample(noise, links))

    def _normal(self, n: int, more: int, generator: torch.Generator, slots: int | None = None) -> Tensor:
        """Return standard normal noise ``[n, 1 + L + more, K, D]``."""
        c = self.config
        shape = (n, 1 + c.layers + more, slots or c.slots, c.slot_size)
        return draw(torch.randn, shape, generator, like=self.hierarchy.first)
