"""AIR: Attend, Infer, Repeat (Eslami et al., NeurIPS 2016), and what AIR-pPrior and AIR-ASR make of it.

An image is N objects on black. An object is *where* it is (scale and position of a square window) and *what*
it looks like (a code that a decoder turns into the window's content). A recurrent network finds one object
a step and decides before each whether there is one more.

All K steps are unrolled as if every object were there; how many really are is left to an estimator
(`parts.objects.estimators`). The default takes the expectation over the K + 1 possible counts exactly, so that what
is left to sample is continuous and reparameterised, and the gradient is that of a plain autoencoder.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent
from torch.nn.functional import avg_pool2d

from multiobj_data.scenes import Prediction
from reference_models.air_settings import AIRConfig
from reference_models.base import ImageShape, Loss, SceneModel, evaluating, noise_of
from reference_models.parts.nets import mlp, normal_from, output_layer, reparameterise
from reference_models.parts.noise import draw
from reference_models.parts.objects.answers import share_pixels, tight_boxes
from reference_models.parts.objects.constraints import Layout
from reference_models.parts.objects.counts import doubting, presence_of, stick_breaking
from reference_models.parts.objects.estimators import Enumeration
from reference_models.parts.objects.evidence import Evidence, Latent
from reference_models.parts.objects.eye import Eye
from reference_models.parts.objects.placing import WHERE
from reference_models.parts.objects.windows import Windows
from reference_models.parts.precision import wide
from reference_models.parts.recurrent import SharedInputLSTM, shifted


class State(NamedTuple):
    """What one step of inference hands to the next."""

    hidden: Tensor  # [B, lstm_size]
    cell: Tensor  # [B, lstm_size]
    z: Tensor  # [B, 3 + what_size], the object just found
    drawn: tuple[
        Tensor, ...
    ] = ()  # [B, C, H, W] each, the objects so far alone on canvases, if inference looks at them


class Found(NamedTuple):
    """What one step of inference says about its object."""

    decision: Tensor  # [B], logit of "there is one more"
    where: Tensor  # [B, 6], parameters of q(z_where)
    what: Tensor  # [B, 2 what_size], parameters of q(z_what)


@dataclass(frozen=True)
class Posterior:
    """q(N, z | x), with one sample of z; objects in the order in which they were found."""

    decisions: Tensor  # [B, K], logits
    where: Independent  # [B, K, 3]
    what: Independent  # [B, K, what_size]
    z: Tensor  # [B, K, 3 + what_size]
    drawn: Tensor | None = None  # [B, K, C, H, W], the objects of z, if inference had to draw them

    @property
    def count(self) -> Categorical:
        """q(N | x), N = 0..K, batch ``[B]``."""
        return stick_breaking(self.decisions)


class Noise(NamedTuple):
    """All that a training step draws."""

    z: Tensor  # [B * particles, K, 3 + what_size], standard normal
    uniform: Tensor | None  # [B * particles, K] in [0, 1), for estimators that sample N


class AIR(SceneModel):
    """Attend, Infer, Repeat.

    Differs from the paper: N is enumerated unless another estimator is chosen; z_where is a standard normal
    that is mapped to a positive scale and a position, so that no window can have a negative side.

    Args:
        config: Settings.
        image_shape: ``(H, W, C)``; any size, any number of channels.
    """

    config_type = AIRConfig
    config: AIRConfig

    def __init__(self, config: AIRConfig, image_shape: ImageShape) -> None:
        super().__init__(config, image_shape)
        height, width, channels = image_shape
        c = config
        self.latents = WHERE + c.what_size
        pixels, window = height * width * channels, channels * c.window_size**2
        activation = {"relu": nn.ReLU, "softplus": nn.Softplus}[c.activation]
        self.look = Eye(image_shape, c.filters)
        unexplained = c.difference_features(image_shape)
        self.lstm = SharedInputLSTM(self.look.features, self.latents + unexplained, c.lstm_size)
        self.find = mlp(c.lstm_size, [c.hidden_size], 1 + 2 * WHERE)
        self.encode = mlp(window, c.code_layers, 2 * c.what_size, activation)
        self.decode = mlp(c.what_size, c.code_layers[::-1], window, activation)
        self.first = nn.Parameter(torch.zeros(2 * c.lstm_size + self.latents))
        self.prior = c.build_prior(self.latents)
        self.decision_prior = c.build_decision_prior()
        self.baseline = c.build_baseline(pixels, self.latents)
        self.estimator = c.build_estimator()
        self.placing, self.likelihood = c.build_placing(), c.build_likelihood()
        self.regulariser = c.build_regulariser()
        self._initialise()

    def _initialise(self) -> None:
        c = self.config
        with torch.no_grad():
            find, decode = output_layer(self.find), output_layer(self.decode)
            find.weight.mul_(0.1)  # begin at the prior: centred windows of the usual size
            find.bias.zero_()
            find.bias[0] = c.presence_bias
            find.bias[1 + WHERE :] = c.where_raw_sd
            decode.bias.fill_(c.decoder_bias)

    # --- inference ------------------------------------------------------------------------------------

    def infer(self, images: Tensor, noise: Tensor) -> Posterior:
        """Return q(N, z | x) and the sample of z that belongs to ``noise``.

        Args:
            images: Float ``[B, C, H, W]`` in [0, 1].
            noise: Standard normal ``[B * particles, K, 3 + what_size]``, image by image; zeros give the means.
        """
        particles = len(noise) // len(images)
        gates = _repeat(self.lstm.gates(self.look(images)), particles)  # [B, 4 lstm_size]
        images = _repeat(images, particles)
        size = self.config.lstm_size
        state = State(*self.first.expand(len(images), -1).split([size, size, self.latents], dim=-1))
        steps, zs = [], []
        for step_noise in noise.unbind(1):
            state, found = self.step(state, images, gates, step_noise)
            steps.append(found)
            zs.append(state.z)
        decisions, where, what = (torch.stack(values, dim=1) for values in zip(*steps, strict=True))
        drawn = torch.stack(state.drawn, dim=1) if state.drawn else None
        return Posterior(decisions, normal_from(where), normal_from(what), torch.stack(zs, dim=1), drawn)

    def step(self, state: State, images: Tensor, gates: Tensor, noise: Tensor) -> tuple[State, Found]:
        """Find one more object, as if there were one."""
        hidden, cell = self.lstm.step(gates, self._read(state, images), (state.hidden, state.cell))
        decision, where = wide(self.find(hidden)).split([1, 2 * WHERE], dim=-1)
        noise_where, noise_what = noise.split([WHERE, self.config.what_size], dim=-1)
        z_where = reparameterise(where, noise_where)
        glimpse = self.windows(z_where).crop(images, self.config.window_size)  # [B, C, S, S]
        what = wide(self.encode(glimpse.flatten(1)))
        z_what = reparameterise(what, noise_what)
        z = torch.cat([z_where, z_what], dim=-1)
        drawn = (*state.drawn, self.render(z_where, z_what)) if self.config.difference_pool else ()
        return State(hidden, cell, z, drawn), Found(decision.squeeze(-1), where, what)

    def _read(self, state: State, images: Tensor) -> Tensor:
        """Return what the recurrent network reads in its next step beside the image."""
        if not self.config.difference_pool:
            return state.z
        unexplained = images - sum(state.drawn)
        means = avg_pool2d(unexplained, self.config.difference_pool, ceil_mode=True)
        return torch.cat([state.z, means.flatten(1)], dim=-1)

    def split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return z_where ``[..., 3]`` and z_what ``[..., what_size]`` of ``z``."""
        z_where, z_what = z.split([WHERE, self.config.what_size], dim=-1)
        return z_where, z_what

    def windows(self, z_where: Tensor) -> Windows:
        """Return the windows of ``z_where [..., 3]``."""
        height, width, _ = self.image_shape
        return self.placing.windows(z_where, height, width)

    def z_where_of(self, windows: Windows) -> Tensor:
        """Return the ``z_where [..., 3]`` of windows; the inverse of `windows`."""
        height, width, _ = self.image_shape
        return self.placing.z_where(windows, height, width)

    # --- generation -----------------------------------------------------------------------------------

    def priors(self, z: Tensor) -> tuple[Tensor, Independent | None]:
        """Return what to expect of each object given those before it.

        Args:
            z: ``[B, K, 3 + what_size]``.

        Returns:
            Logits of the decisions, ``[B or 1, K]``, and p(z_where), ``None`` for the standard normal.
        """
        read = None if self.prior is None else self.prior(z)
        where = None if read is None else read[1]
        if self.decision_prior is not None:
            return self.decision_prior[None], where
        if read is not None and self.config.count_prior == "autoregressive":
            return read[0], where
        return self._scheduled_decisions().to(z)[None], where

    @torch.compiler.disable  # the step is another number each time, for which all would be compiled anew
    def _scheduled_decisions(self) -> Tensor:
        return self.config.decision_prior_at(self._scheduled_step())

    @torch.compiler.disable
    def _scheduled_doubt(self, like: Tensor) -> Tensor:
        return like.new_tensor(self.config.doubt_at(self._scheduled_step()))

    def _scheduled_step(self) -> float:
        return self.training_step if self.training else float("inf")  # who answers has learnt all there was

    def prior_count(self, like: Tensor) -> Categorical:
        """Return p(N) before anything is known of the objects, with the type and device of ``like``."""
        decisions, _ = self.priors(like.new_zeros(1, self.config.max_objects, self.latents))
        return stick_breaking(decisions[0])

    def render(self, z_where: Tensor, z_what: Tensor) -> Tensor:
        """Draw each object alone on a canvas: ``[..., C, H, W]``."""
        height, width, channels = self.image_shape
        size = self.config.window_size
        glimpses = torch.sigmoid(self.decode(z_what)).unflatten(-1, (channels, size, size))
        return self.windows(z_where).paste(glimpses, height, width)

    def sample(self, n: int, generator: torch.Generator, count: Tensor | None = None) -> Tensor:
        """Draw ``n`` images from the model, without pixel noise.

        Args:
            n: How many.
            generator: Where the randomness comes from.
            count: Whole numbers ``[n]``, how many objects each image has; drawn from p(N) if not given
                (nearly always 0 with a geometric prior, which is a penalty rather than a belief).

        Returns:
            float ``[n, H, W, C]`` in [0, 1].
        """
        with torch.no_grad(), evaluating(self):
            z, drawn = self.sample_objects(n, generator)
            objects = self.render(*self.split(z))
            canvas = self._first(objects, drawn if count is None else count).sum(1).clamp(0, 1)
        return canvas.movedim(1, -1)

    @torch.no_grad()
    def sample_objects(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw objects and their number from the prior.

        Returns:
            z, ``[n, K, 3 + what_size]``, of as many objects as there may be, and N, int64 ``[n]``.
        """
        uniform = self._uniform(n, generator)
        z = self._noise(n, generator)
        k = self.config.max_objects
        for t in range(k):  # objects before t are final
            _, where = self.priors(z)
            if where is not None:
                loc, scale = where.base_dist.loc[:, t], where.base_dist.scale[:, t]
                z[:, t, :WHERE] = loc + scale * z[:, t, :WHERE]
        go = uniform < torch.sigmoid(self.priors(z)[0])  # [n, K]
        return z, go.long().cumprod(-1).sum(-1)

    # --- learning and answering -----------------------------------------------------------------------

    def draw(self, n: int, generator: torch.Generator) -> Noise:
        """Draw the noise of one training step on ``n`` images."""
        rows = n * self.estimator.particles
        z = self._noise(rows, generator)
        return Noise(z, self._uniform(rows, generator) if self.estimator.samples else None)

    def objective(self, images: Tensor, noise: Noise) -> Loss:
        """Return the estimated negative ELBO in nats, of q with its doubt, term by term, and the penalties.

        Args:
            images: Float ``[B, C, H, W]`` in [0, 1].
            noise: See `Noise`.
        """
        q = self.infer(images, noise.z)
        evidence = self.evidence(images, q)
        if self.config.doubt:
            evidence = replace(evidence, decisions=doubting(q.decisions, self._scheduled_doubt(q.decisions)))
        terms, exists = self.estimator(evidence, noise.uniform)
        unit = {} if self.baseline is None else {"baseline": self.baseline.typical**-2}  # no nats squared
        loss = Loss(terms, unit)
        return loss + self.penalty(q, exists) if self.regulariser else loss

    def negative_elbo(self, images: Tensor, noise: Tensor) -> Loss:
        """Return the negative ELBO, exact over N and with one sample of z, whatever the model is trained with.

        ``ELBO = sum_n q(n) log p(x | n, z) - KL(q(N) || p(N)) - sum_t P(N >= t) KL_t``: object t costs its
        KL only where it exists. Each KL is analytic.

        Args:
            images: Float ``[B, C, H, W]`` in [0, 1].
            noise: Standard normal ``[B, K, 3 + what_size]``.
        """
        return Loss(Enumeration()(self.evidence(images, self.infer(images, noise))).terms)

    def evidence(self, images: Tensor, q: Posterior) -> Evidence:
        """Return what q says about float ``images [B, C, H, W]``, which may have several particles each."""
        z_where, z_what = self.split(q.z)
        image = _repeat(images, len(q.z) // len(images)).flatten(1)  # [B, P]
        drawn = self.render(z_where, z_what) if q.drawn is None else q.drawn
        objects = drawn.flatten(2)  # [B, K, P]
        decisions, where = self.priors(q.z)
        return Evidence(
            decisions=q.decisions,
            prior=decisions,
            latents={"where": Latent(q.where, z_where, where), "what": Latent(q.what, z_what)},
            log_likelihood=self.log_likelihoods(image, objects),
            relaxed=lambda presence: self.likelihood((presence[..., None] * objects).sum(1), image),
            baseline=self._expected_cost(image, q),
        )

    def log_likelihoods(self, image: Tensor, objects: Tensor) -> Tensor:
        """Return log p(x | the first n objects) for n = 0..K in nats: ``[B, K + 1]``.

        Args:
            image: ``[B, P]``.
            objects: ``[B, K, P]``, each alone on its canvas.
        """
        canvases = accumulate(objects.unbind(1), initial=torch.zeros_like(image))
        return torch.stack([self.likelihood(canvas, image) for canvas in canvases], dim=-1)

    def _expected_cost(self, image: Tensor, q: Posterior) -> Tensor | None:
        if self.baseline is None:
            return None
        expected: Tensor = self.baseline(image, shifted(self.first[-self.latents :], q.z))
        return expected

    def penalty(self, q: Posterior, exists: Tensor) -> Loss:
        """Return the structural regularisers of B rows (Xu et al. 2019, eq. 10).

        Args:
            q: Of B rows.
            exists: How far each object exists, ``[B, K]``.
        """
        c = self.config
        canvas = self.image_shape[:2]
        windows = self.windows(q.z[..., :WHERE])
        of_rows = self.regulariser(
            Layout(windows, exists, canvas, c.size_range, c.size_tolerance), q.decisions
        )
        terms = {name: _per_image(term, self.estimator.particles) for name, term in of_rows.terms.items()}
        return Loss(terms, of_rows.weights)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return all parameters; a baseline's apart, which learns at its own rate and is clipped by itself."""
        if self.baseline is None:
            return super().parameter_groups()
        own = set(map(id, self.baseline.parameters()))
        others = [p for p in self.parameters() if id(p) not in own]
        return [
            {"params": others, "lr": self.config.learning_rate},
            {"params": list(self.baseline.parameters()), "lr": self.config.baseline_learning_rate},
        ]

    def predict_batch(self, images: Tensor) -> Prediction:
        """Answer from the posterior means; the ELBO is that of one sample, keyed by the image."""
        x = self.as_float(images)
        noise = noise_of(images, (self.config.max_objects, self.latents), like=x)
        q = self.infer(x, torch.zeros_like(noise))
        count, presence = presence_of(q.count)
        drawn = self.render(*self.split(q.z)) if q.drawn is None else q.drawn  # [B, K, C, H, W]
        objects = self._first(drawn, count)
        return Prediction(
            presence=presence,
            count=count,
            masks=share_pixels(objects, self.config.mask_level),
            background_slots=(0,),
            boxes=self._boxes(drawn, q.z),
            reconstruction=objects.sum(1).clamp(0, 1).movedim(1, -1),
            slots=torch.cat(
                [torch.full_like(q.z[:, :1], torch.nan), q.z], dim=1
            ),  # the background has no code
            log_likelihood=-self.negative_elbo(x, noise).per_image,
            likelihood_kind=f"elbo; {self.likelihood.facts}",
        )

    def _boxes(self, objects: Tensor, z: Tensor) -> Tensor:
        """Return boxes ``[B, K, 4]``; an object without any bright pixel has its window."""
        windows = self.windows(z[..., :WHERE]).boxes()
        if self.config.boxes == "window":
            return windows
        tight = tight_boxes(objects, self.config.mask_level)
        return torch.where(tight.isfinite(), tight, windows)

    def _first(self, objects: Tensor, count: Tensor) -> Tensor:
        """Return ``objects [B, K, C, H, W]`` with all but the first ``count`` of each image left out."""
        slots = torch.arange(self.config.max_objects, device=objects.device)
        there = slots < count.to(objects.device)[:, None]
        return objects * there[:, :, None, None, None].to(objects.dtype)

    def _noise(self, n: int, generator: torch.Generator) -> Tensor:
        return draw(torch.randn, (n, self.config.max_objects, self.latents), generator, like=self.first)

    def _uniform(self, n: int, generator: torch.Generator) -> Tensor:
        return draw(torch.rand, (n, self.config.max_objects), generator, like=self.first)


def _repeat(rows: Tensor, times: int) -> Tensor:
    return rows if times == 1 else rows.repeat_interleave(times, dim=0)


def _per_image(rows: Tensor, particles: int) -> Tensor:
    """Average ``[B * particles]`` over the particles of each image: ``[B]``."""
    return rows if particles == 1 else rows.unflatten(0, (-1, particles)).mean(1)
