"""SuPAIR: Attend, Infer, Repeat with tractable models of objects and background (Stelzner et al., ICML 2019).

An image is N opaque rectangles on a background. What a rectangle shows, and what the background is, are random
variables of sum-product networks, in which any part that is hidden is integrated out exactly. No code of an
object's looks has to be inferred: what is left to the guide is where objects would be; which are there is summed over.

The pose is reparameterised, so that the gradient is that of a plain function.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from multiobj_data.scenes import Prediction
from reference_models.base import ImageShape, Loss, SceneModel, noise_of
from reference_models.parts.noise import draw
from reference_models.parts.objects.answers import tight_boxes
from reference_models.parts.objects.backgrounds import BlackBackground
from reference_models.parts.objects.counts import presence_among, stick_breaking
from reference_models.parts.objects.guide import Posterior
from reference_models.parts.objects.occlusion import (
    Orders,
    first_objects,
    uncovered,
    visibility,
    visible_parts,
)
from reference_models.parts.objects.poses import POSE, PosePrior, rectangles_of
from reference_models.parts.objects.rectangles import Profiles, Rectangles
from reference_models.parts.spn import SumProductNetwork
from reference_models.supair_settings import SuPAIRConfig

LAYOUTS = 32
"""Layouts to choose from for every sampled image."""

CHUNK = 1024
"""Layouts whose occlusion is looked at at once; bounds the memory."""


class Scores(NamedTuple):
    """How well the parts of a layout explain an image, in nats; Q queries and S sets of objects as in `Orders`."""

    objects: Tensor  # [B, Q], what is seen of an object behind those in front of it
    occlusion: Tensor  # [B, Q], how probable it is that so much of it is hidden
    background: Tensor  # [B, S], what is seen of the background past the objects of a set

    @property
    def explained(self) -> Tensor:
        """What each query adds to the log likelihood, ``[B, Q]``."""
        return self.objects + self.occlusion


class SuPAIR(SceneModel):
    """Sum-Product Attend-Infer-Repeat.

    Differs from the paper:

    - Any of the K objects may be there, not the first N alone, and which are is summed over in the likelihood itself,
      so that Bayes' rule counts and no q(N | x) has to be learnt (``count=guided`` does it the paper's way).
    - Beside the whole image, the guide sees in each step what its objects leave of it, through convolutions, and at
      first nothing else, so that the second is found as the first was (``sees=image``: the whole image alone).
    - p(N) and the uniform prior of the pose have their constants, which shifts the ELBO and, where every object has a
      pose, changes nothing else; the entropy of the pose is exact.
    - Samples of a patch lie at the centres of its cells.

    Args:
        config: Settings.
        image_shape: ``(H, W, C)``; any size, any number of channels.
    """

    config_type = SuPAIRConfig
    config: SuPAIRConfig
    poses: PosePrior
    orders: Orders
    objects: nn.ModuleList
    background: SumProductNetwork | BlackBackground
    _prior: Tensor

    def __init__(self, config: SuPAIRConfig, image_shape: ImageShape) -> None:
        super().__init__(config, image_shape)
        c = config
        self.poses = c.build_pose_prior(image_shape)
        self.guide = c.build_guide(image_shape, self.poses)
        self.orders = c.build_orders()
        self.objects = c.build_objects(image_shape[-1])
        self.background = c.build_background(image_shape)
        prior = c.build_decision_prior()
        self.decision_prior = prior if isinstance(prior, nn.Parameter) else None
        self.register_buffer("_prior", prior.detach().clone(), persistent=False)

    # --- inference ------------------------------------------------------------------------------------

    def infer(self, images: Tensor, noise: Tensor) -> Posterior:
        """Return q(N, z_where | x) and the sample of z_where that belongs to ``noise``.

        Args:
            images: Float ``[B, C, H, W]`` in [0, 1].
            noise: Standard normal ``[B, K, 4]``; zeros give the means.
        """
        posterior: Posterior = self.guide(images, noise, self._margin())
        return posterior

    @torch.compiler.disable  # the step is another number each time, for which all would be compiled anew
    def _margin(self) -> float:
        c = self.config
        return c.margin * max(0.0, 1 - self.training_step / c.margin_steps) if self.training else 0.0

    def present(self, q: Posterior, scores: Scores) -> Tensor:
        """Return log p(set | x, z_where) of which objects are there, or log q(N | x) of the guide: ``[B, S]``."""
        if self.config.count == "guided":
            return q.count.logits
        joint = self.orders.evidence(scores.explained) + scores.background + self.prior_sets()
        if self.config.pose_of == "present":
            joint = joint - self._pose_cost(q) @ self.orders.members.to(joint).mT
        return joint.log_softmax(-1)

    def _pose_cost(self, q: Posterior) -> Tensor:
        """Return KL(q(z_where) | p(z_where)) of each object, which is uniform a priori: ``[B, K]``."""
        return self.poses.log_volume - q.entropy()

    def prior_sets(self) -> Tensor:
        """Return log p of each set of objects, ``[S]``: p(N), spread evenly over the sets of N."""
        prior = self.prior_count().logits.gather(0, self.orders.counts)
        return (prior - self.orders.alike.to(prior).log()).to(next(self.parameters()))

    def looks(self, i: int) -> SumProductNetwork:
        """Return the model of what the i-th object looks like."""
        return cast(SumProductNetwork, self.objects[i % len(self.objects)])

    # --- what an image is worth -----------------------------------------------------------------------

    def prior_count(self) -> Categorical:
        """Return p(N), N = 0..K."""
        logits = self._prior if self.decision_prior is None else self.decision_prior
        return stick_breaking(logits)

    def score(self, images: Tensor, z_where: Tensor) -> Scores:
        """Return how well objects at ``z_where [B, K, 4]`` explain ``images [B, C, H, W]`` (eq. 7)."""
        height, width, _ = self.image_shape
        rectangles = rectangles_of(z_where)
        covered = self._hiding(rectangles)
        sampling = rectangles.sampling(self.config.patch_size, height, width)
        visible = visibility(self.orders.queries, sampling, sampling.read_profiles(covered))  # [B, Q, A, A]
        # A patch has A^2 values for the pixels of its rectangle: its log likelihood counts in proportion.
        exponent = _of(rectangles.area() / self.config.patch_size**2, self.orders.items)  # [B, Q]
        objects = self._objects_log_likelihood(sampling.read(images), visible.flatten(2))
        rate = self.config.occlusion_rate
        hidden = 1 - visible.mean((-2, -1))
        return Scores(
            objects=exponent * objects,
            occlusion=math.log(rate) - rate * hidden,
            background=self._background_log_likelihood(images, uncovered(covered.pixels, self.orders.sets)),
        )

    def _hiding(self, rectangles: Rectangles) -> Profiles:
        """Return how far each rectangle hides pixels where an image is scored."""
        height, width, _ = self.image_shape
        if self.config.mask == "scatter":
            return rectangles.scattered(self.config.patch_size, height, width)
        return rectangles.coverage(height, width)

    def _covered(self, rectangles: Rectangles) -> Tensor:
        """Return how far each rectangle covers each pixel where something is drawn: ``[B, K, H, W]``."""
        height, width, _ = self.image_shape
        return rectangles.coverage(height, width).pixels

    def _objects_log_likelihood(self, patches: Tensor, visible: Tensor) -> Tensor:
        """Return log p of what is seen of ``patches [B, K, C, A, A]`` in each query: ``[B, Q]``."""
        items = self.orders.items
        if self.config.shared_objects:
            values = _of(patches.flatten(2), items).flatten(0, 1)
            return self.looks(0).log_likelihood(values, visible.flatten(0, 1)).view(len(patches), -1)
        scores = [
            self.looks(i).log_likelihood(patches[:, i].flatten(1), visible[:, place])
            for place, i in enumerate(items)
        ]
        return torch.stack(scores, dim=-1)

    def _background_log_likelihood(self, images: Tensor, visible: Tensor) -> Tensor:
        """Return log p of what is seen of the background through each of ``visible [B, S, H, W]``."""
        n = visible.shape[1]
        values = images.flatten(1)[:, None].expand(-1, n, -1).flatten(0, 1)
        return self.background.log_likelihood(values, visible.flatten(2).flatten(0, 1)).view(-1, n)

    # --- learning -------------------------------------------------------------------------------------

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the guide's parameters, which have a step size of their own, and the others."""
        own = set(map(id, self.guide.parameters()))
        others = [p for p in self.parameters() if id(p) not in own]
        return [
            {"params": others, "lr": self.config.learning_rate},
            {"params": list(self.guide.parameters()), "lr": self.config.guide_learning_rate},
        ]

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw the noise of one training step on ``n`` images: standard normal ``[n, K, 4]``."""
        shape = (n, self.config.max_objects, POSE)
        return draw(torch.randn, shape, generator, like=next(self.parameters()))

    def objective(self, images: Tensor, noise: Tensor) -> Loss:
        """Return the negative ELBO in nats, exact over which objects are there, and over the order if inferred (eq. 9).

        Args:
            images: Float ``[B, C, H, W]`` in [0, 1].
            noise: Standard normal ``[B, K, 4]``.
        """
        q = self.infer(images, noise)
        scores = self.score(images, q.z)
        log_sets = self.present(q, scores)
        sets = log_sets.exp()  # [B, S]
        order = self.orders.posterior(scores.explained)
        share = self.orders.shares(sets, order)  # [B, Q]
        every = self.config.pose_of == "all"
        exists = torch.ones_like(q.decisions) if every else sets @ self.orders.members.to(sets)
        terms = {
            "object": -(share * scores.objects).sum(-1),
            "occlusion": -(share * scores.occlusion).sum(-1),
            "background": -(sets * scores.background).sum(-1),
            "count": (sets * (log_sets - self.prior_sets())).sum(-1),
            "pose": (exists * self._pose_cost(q)).sum(-1),
        }
        if self.config.order == "inferred":
            terms["order"] = (sets * self.orders.surprise(order)).sum(-1)
        return Loss(terms)

    # --- answering and sampling -----------------------------------------------------------------------

    def predict_batch(self, images: Tensor) -> Prediction:
        """Answer from the posterior means; the ELBO is that of one sample, keyed by the image.

        The reconstruction is the most probable one given what is seen of each object and of the background
        (Vergari et al. 2018).
        """
        x = self.as_float(images)
        noise = noise_of(images, (self.config.max_objects, POSE), like=x)
        q = self.infer(x, torch.zeros_like(noise))
        scores = self.score(x, q.z)
        chosen, count, presence = self._count(q, scores)
        rectangles = rectangles_of(q.z)
        there = (presence >= 0.5).to(x.dtype)[:, :, None, None]
        masks = visible_parts(self._covered(rectangles) * there, self._order(scores, chosen))
        objects, background = self._complete(x, rectangles, masks)
        drawn = rectangles.draw(objects, *self.image_shape[:2])  # [B, K, C, H, W]
        return Prediction(
            presence=presence,
            count=count,
            masks=masks,
            background_slots=(0,),
            boxes=self._boxes(rectangles, drawn, background),
            reconstruction=_compose(masks, background, drawn),
            slots=torch.cat([torch.full_like(q.z[:, :1], torch.nan), q.z], dim=1),
            log_likelihood=-self.objective(x, noise).per_image,
            likelihood_kind="elbo; space=density; normalised=false; pixel_range=1; extra_terms=occlusion",
        )

    def _count(self, q: Posterior, scores: Scores) -> tuple[Tensor, Tensor, Tensor]:
        """Return the set of objects and the count, ``[B]`` each, and a presence ``[B, K]`` that agrees with them."""
        if self.config.count_rule == "mode":
            return presence_among(self.present(q, scores).exp(), self.orders.members)
        presence = torch.sigmoid(q.decisions)  # the paper's accuracy: each decision by itself
        count = (presence >= 0.5).sum(-1)
        return count, count, presence

    def _order(self, scores: Scores, chosen: Tensor) -> Tensor:
        """Return the most probable order of the objects of the sets ``chosen [B]``, front to back: ``[B, K]``."""
        return self.orders.best(self.orders.posterior(scores.explained), chosen)

    def _complete(self, images: Tensor, rectangles: Rectangles, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Return the most probable objects ``[B, K, C, A, A]`` and background ``[B, C, H, W]``.

        Args:
            images: ``[B, C, H, W]``.
            rectangles: Of the objects.
            masks: Which share of a pixel shows the background and each object, ``[B, 1 + K, H, W]``.
        """
        height, width, _ = self.image_shape
        sampling = rectangles.sampling(self.config.patch_size, height, width)
        patches = sampling.read(images)  # [B, K, C, A, A]
        # The share of a pixel that shows an object, where the object is: rows and columns of its own samples.
        seen = sampling.inside * (sampling.rows @ masks[:, 1:] @ sampling.columns.mT)
        seen = seen.flatten(2)  # [B, K, A * A]
        objects = [self.looks(i).mpe(patches[:, i].flatten(1), seen[:, i]) for i in range(patches.shape[1])]
        background = self.background.mpe(images.flatten(1), masks[:, 0].flatten(1))
        return torch.stack(objects, dim=1).view_as(patches), background.view_as(images)

    def _boxes(self, rectangles: Rectangles, objects: Tensor, background: Tensor) -> Tensor:
        """Return boxes ``[B, K, 4]``; an object that looks like the background has its rectangle."""
        windows = rectangles.boxes()
        if self.config.boxes == "window":
            return windows
        inside = self._covered(rectangles)[:, :, None]
        tight = tight_boxes((objects - background[:, None]).abs() * inside, self.config.mask_level)
        return torch.where(tight.isfinite(), tight, windows)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator, count: Tensor | None = None) -> Tensor:
        """Draw ``n`` images from the model, without pixel noise.

        Args:
            n: How many.
            generator: Where the randomness comes from.
            count: Whole numbers ``[n]``, how many objects each image has; drawn from p(N) if not given.

        Returns:
            float ``[n, H, W, C]`` in [0, 1].
        """
        height, width, channels = self.image_shape
        k, size = self.config.max_objects, self.config.patch_size
        if count is None:
            probs = self.prior_count().probs.to(generator.device)
            count = torch.multinomial(probs, n, replacement=True, generator=generator)
        there = torch.arange(k, device=self.device) < count.to(self.device)[:, None]
        rectangles = rectangles_of(self._sample_layout(there, generator))
        looks = [_without_noise(self.looks(i), n, generator) for i in range(k)]
        objects = rectangles.draw(torch.stack(looks, dim=1).view(n, k, channels, size, size), height, width)
        background = _without_noise(self.background, n, generator).view(n, channels, height, width)
        pixels = self._covered(rectangles) * there[:, :, None, None]
        order = torch.arange(k, device=self.device).expand(n, k)
        return _compose(visible_parts(pixels, order), background.to(objects), objects)

    def _sample_layout(self, there: Tensor, generator: torch.Generator) -> Tensor:
        """Draw poses ``[n, K, 4]`` for the objects that are there, ``[n, K]``.

        Of some layouts from the uniform prior one is chosen with what its occlusion makes of its probability.
        """
        n, k = there.shape
        z = self.poses.sample((n * LAYOUTS, k), generator).to(next(self.parameters()))
        log_p = torch.cat([self._log_occlusion(part) for part in z.split(CHUNK)])  # [n LAYOUTS, K]
        weights = (log_p.unflatten(0, (n, LAYOUTS)) * there[:, None]).sum(-1).softmax(-1)
        chosen = torch.multinomial(weights.to(generator.device), 1, generator=generator).to(z.device)
        return z.unflatten(0, (n, LAYOUTS)).take_along_dim(chosen[:, :, None, None], dim=1)[:, 0]

    def _log_occlusion(self, z_where: Tensor) -> Tensor:
        """Return the log probability, up to a constant, of what is hidden of each object: ``[n, K]``."""
        rectangles = rectangles_of(z_where)
        parts = self._covered(rectangles)
        free = uncovered(parts, first_objects(parts.shape[1] - 1))
        seen = (parts * free).sum((-2, -1)) / rectangles.area()
        return self.config.occlusion_rate * (seen - 1)


def _without_noise(
    network: SumProductNetwork | BlackBackground, n: int, generator: torch.Generator
) -> Tensor:
    """Draw ``[n, D]`` and let the network paint anew what it takes each for, by the means of its leaves."""
    return network.mpe(network.sample(n, generator))


def _of(values: Tensor, items: list[int]) -> Tensor:
    """Return ``values [B, K, ...]`` of each query's object: ``[B, Q, ...]``."""
    return values if items == list(range(values.shape[1])) else values[:, items]


def _compose(masks: Tensor, background: Tensor, objects: Tensor) -> Tensor:
    """Return the image ``[B, H, W, C]`` in [0, 1] of a background and objects of which shares are seen (eq. 2).

    Args:
        masks: ``[B, 1 + K, H, W]``.
        background: ``[B, C, H, W]``.
        objects: ``[B, K, C, H, W]``.
    """
    layers = torch.cat([background[:, None], objects], dim=1)
    return (masks[:, :, None] * layers).sum(1).clamp(0, 1).movedim(1, -1)
