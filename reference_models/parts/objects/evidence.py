"""What one unrolled inference says about its images, for every number of objects that they may hold.

AIR finds object after object as if each were there; how many really are is a second question, and the
estimators of `parts.objects.estimators` answer it in their different ways from the same evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.distributions import Independent, kl_divergence

from reference_models.parts.nets import kl_to_standard_normal, standard_normal_log_density


@dataclass(frozen=True)
class Latent:
    """One kind of latent of every object: posterior, prior, and the sample that was drawn.

    Attributes:
        q: Posterior, diagonal normal with batch ``[B, K]``.
        z: Its sample, ``[B, K, D]``.
        p: Prior, broadcastable to ``q``; ``None`` is the standard normal.
    """

    q: Independent
    z: Tensor
    p: Independent | None = None

    def kl(self) -> Tensor:
        """Return KL(q || p) in nats, analytic: ``[B, K]``."""
        return kl_to_standard_normal(self.q) if self.p is None else kl_divergence(self.q, self.p)

    def log_ratio(self) -> Tensor:
        """Return log q(z) - log p(z) at the sample, whose mean is the KL: ``[B, K]``."""
        log_p = standard_normal_log_density(self.z) if self.p is None else self.p.log_prob(self.z)
        return self.q.log_prob(self.z) - log_p


@dataclass(frozen=True)
class Evidence:
    """What the posterior decides, what the prior expects, and how well each count explains the image.

    Attributes:
        decisions: Logits of q(object t is there | those before are), ``[B, K]``.
        prior: Logits of p(object t is there | those before are), ``[B or 1, K]``.
        latents: Name -> latents of each object; they exist where the object does.
        log_likelihood: log p(x | the first n objects) for n = 0..K, ``[B, K + 1]``.
        relaxed: Returns log p(x | objects that are there by degrees) ``[B]`` for presence ``[B, K]`` in [0, 1].
        baseline: What a network expects the cost from decision t on to be, ``[B, K]``, if there is one.
    """

    decisions: Tensor
    prior: Tensor
    latents: Mapping[str, Latent]
    log_likelihood: Tensor
    relaxed: Callable[[Tensor], Tensor]
    baseline: Tensor | None = None

    def kl(self) -> Tensor:
        """Return the nats that each object's latents cost if it exists: ``[B, K]``."""
        first, *others = (latent.kl() for latent in self.latents.values())
        return sum(others, first)
