"""Estimators of the ELBO's gradient with respect to the number of objects: one idea, seven ways.

The ELBO is an expectation over N, the number of AIR's go-or-stop decisions that say "go". Everything else in
it is reparameterised. `Enumeration` takes the expectation exactly; the others sample N, or relax it. Each
takes the same `Evidence` and returns named terms of a loss whose gradient estimates that of the negative
ELBO (`Vimco`: of a tighter bound; `Concrete`: of a relaxed model, with a bias).

Terms named ``score`` have the value 0: they carry a gradient alone, so that the total of any estimator is its
estimate of the negative ELBO.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, one_hot, pad, softplus

from reference_models.parts.objects.counts import at_least, stick_breaking
from reference_models.parts.objects.evidence import Evidence


class Estimate(NamedTuple):
    """Terms of the loss, and how far each object exists in them."""

    terms: dict[str, Tensor]  # name -> [B]
    exists: Tensor  # [B, K] in [0, 1], to weight what else is said about the objects


class Estimator(nn.Module):
    """Turns evidence into the terms of a loss.

    Attributes:
        samples: Whether it draws N, from uniform noise.
        particles: Draws of all latents an image; rows of the evidence lie image by image.
    """

    samples = True
    particles = 1

    def forward(self, evidence: Evidence, uniform: Tensor | None) -> Estimate:
        """Estimate the negative ELBO of B images.

        Args:
            evidence: Of ``B * particles`` rows.
            uniform: Noise in [0, 1), ``[B * particles, K]``; ``None`` if the estimator draws nothing.
        """
        raise NotImplementedError


class Enumeration(Estimator):
    """All K + 1 counts, each with its posterior probability: no variance from N at all."""

    samples = False

    def forward(self, evidence: Evidence, uniform: Tensor | None = None) -> Estimate:
        """See `Estimator`."""
        q, p = stick_breaking(evidence.decisions), stick_breaking(evidence.prior)
        kl_count = (q.probs * (q.logits - p.logits)).sum(
            -1
        )  # p's probabilities may underflow, its logits not
        return elbo_terms(evidence, q.probs, at_least(q), kl_count)


class ScoreFunction(Estimator):
    """One sampled N; its decisions are reinforced by what followed from them (Williams 1992).

    A decision pays for the likelihood and for every later cost, not for what was settled before it. With a
    baseline in the evidence, it pays for the difference to what the baseline expects, which itself learns by
    least squares (term ``baseline``). The baseline of decision t sees only what was there before t: one that
    saw the decision's outcome would bias the gradient (Drelich's report; Mnih & Gregor 2014, sec. 2.3).
    """

    def forward(self, evidence: Evidence, uniform: Tensor | None) -> Estimate:
        """See `Estimator`."""
        n = _Draw(evidence, uniform)
        estimate = n.elbo_terms(evidence)
        later = n.present * evidence.kl() + n.log_q - n.log_p  # [B, K]: what step t adds to the cost
        cost = (later.flip(-1).cumsum(-1).flip(-1) - n.log_likelihood(evidence)[:, None]).detach()
        expected = 0.0 if evidence.baseline is None else evidence.baseline
        score = (self.normalised((cost - expected).detach(), n.asked) * n.log_q).sum(-1)
        estimate.terms["score"] = score - score.detach()
        if evidence.baseline is not None:
            estimate.terms["baseline"] = (n.asked * (cost - evidence.baseline).square()).sum(-1)
        return estimate

    def normalised(self, advantage: Tensor, asked: Tensor) -> Tensor:
        """Return the advantage ``[B, K]`` as the decisions are to feel it; here as it is."""
        return advantage


class Nvil(ScoreFunction):
    """The score function with its signal centred and scaled by running moments (Mnih & Gregor 2014, sec. 2.3).

    Args:
        memory: Share of the old moments that each step keeps.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, memory: float = 0.8) -> None:
        super().__init__()
        self.memory = memory
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("variance", torch.ones(()))

    def normalised(self, advantage: Tensor, asked: Tensor) -> Tensor:
        """Return ``(advantage - mean) / max(1, sd)`` and, in training, learn the moments."""
        if self.training:
            n = asked.sum()
            mean = (asked * advantage).sum() / n
            variance = (asked * (advantage - mean).square()).sum() / n
            for moment, new in ((self.mean, mean), (self.variance, variance)):
                moment.add_((1 - self.memory) * (new.to(moment) - moment))
        return (advantage - self.mean) / self.variance.sqrt().clamp(min=1)


class Vimco(Estimator):
    """The importance-weighted bound of S draws, each judged against the S - 1 others (Mnih & Rezende 2016).

    Args:
        particles: S, at least 2.
    """

    def __init__(self, particles: int = 5) -> None:
        super().__init__()
        if particles < 2:
            raise ValueError(f"Vimco: expected at least 2 particles, got {particles}.")
        self.particles = particles

    def forward(self, evidence: Evidence, uniform: Tensor | None) -> Estimate:
        """See `Estimator`; the one term besides ``score`` is minus the bound."""
        n = _Draw(evidence, uniform)
        objects = sum(n.present * latent.log_ratio() for latent in evidence.latents.values())
        log_weight = n.log_likelihood(evidence) - (objects + n.log_q - n.log_p).sum(-1)
        log_weight = log_weight.unflatten(0, (-1, self.particles))  # [B, S]
        bound = log_weight.logsumexp(-1) - math.log(self.particles)  # [B]
        signal = (bound[:, None] - self._without_each(log_weight)).detach()  # [B, S]
        score = (signal * n.log_q.sum(-1).view_as(signal)).sum(-1)
        return Estimate({"negative_bound": -bound, "score": score.detach() - score}, n.present)

    def _without_each(self, log_weight: Tensor) -> Tensor:
        """Return the bound with each draw replaced by the geometric mean of the others: ``[B, S]`` (eq. 10)."""
        s = self.particles
        others = (log_weight.sum(-1, keepdim=True) - log_weight) / (s - 1)  # [B, S]
        itself = torch.eye(s, dtype=torch.bool, device=log_weight.device)
        replaced = torch.where(itself, others[:, :, None], log_weight[:, None, :])  # [B, S, S]
        return replaced.logsumexp(-1) - math.log(s)


class MeasureValued(Estimator):
    """The difference between going on and stopping, at every decision that is reached (Mohamed et al. 2020).

    The derivative of a Bernoulli's expectation is ``dp/dl (f(1) - f(0))``; f(1) is one draw of the decisions
    that follow.
    """

    def forward(self, evidence: Evidence, uniform: Tensor | None) -> Estimate:
        """See `Estimator`."""
        n = _Draw(evidence, uniform)
        estimate = n.elbo_terms(evidence)
        q, p = stick_breaking(evidence.decisions), stick_breaking(evidence.prior)
        objects = pad(evidence.kl().cumsum(-1), (1, 0))  # [B, K + 1]
        cost = (objects + q.logits - p.logits - evidence.log_likelihood).detach()  # of each count
        gone_on = cost.gather(-1, n.counts_if_gone_on())  # [B, K]
        go = torch.sigmoid(evidence.decisions)
        score = (n.asked * go * (gone_on - cost[:, :-1])).sum(-1)
        estimate.terms["score"] = score - score.detach()
        return estimate


class Concrete(Estimator):
    """Decisions that are there by degrees, in the sampling and in the picture (Maddison et al. 2017).

    As in AIR-ASR's released code: an image's objects end where the sum of (1 - presence) reaches a threshold;
    objects before that are drawn by their degree, and their latents cost in full.

    Args:
        temperature: Small is close to Bernoulli, with wilder gradients.
        stop: The threshold.
        straight_through: Draw objects whole or not at all; pass the gradient as if they were there by degrees.
    """

    def __init__(self, temperature: float, stop: float = 0.99, straight_through: bool = False) -> None:
        super().__init__()
        self.temperature, self.stop, self.straight_through = temperature, stop, straight_through

    def forward(self, evidence: Evidence, uniform: Tensor | None) -> Estimate:
        """See `Estimator`."""
        assert uniform is not None
        logistic = torch.logit(uniform, eps=torch.finfo(uniform.dtype).eps)
        y = (evidence.decisions + logistic) / self.temperature  # [B, K], before the sigmoid
        presence = torch.sigmoid(y)
        stopped = (1 - presence).cumsum(-1)
        alive = (stopped < self.stop).to(y.dtype)  # [B, K]
        asked = pad(alive, (1, 0), value=1.0)[:, :-1]
        kl_count = self._log_density(y, evidence.decisions) - self._log_density(y, evidence.prior)
        if self.straight_through:
            presence = presence + (presence.round() - presence).detach()
        exists = alive * presence
        latents = {f"kl_{name}": (alive * latent.kl()).sum(-1) for name, latent in evidence.latents.items()}
        terms = {
            "negative_log_likelihood": -evidence.relaxed(exists),
            "kl_count": (asked * kl_count).sum(-1),
            **latents,
        }
        return Estimate(terms, exists)

    def _log_density(self, y: Tensor, logits: Tensor) -> Tensor:
        """Return the log density of ``y``, the logit of a binary Concrete variable (appendix C.3.2)."""
        log_odds = logits - self.temperature * y
        return math.log(self.temperature) + log_odds - 2 * softplus(log_odds)


class _Draw:
    """One N an image, drawn decision by decision.

    Attributes:
        go: Each decision, as if it were asked, ``[B, K]`` of 0 and 1.
        present: Whether object t is there, ``[B, K]``.
        asked: Whether decision t is reached, ``[B, K]``.
        log_q: Log probability of decision t, 0 where not asked, ``[B, K]``.
        log_p: The same under the prior.
    """

    def __init__(self, evidence: Evidence, uniform: Tensor | None) -> None:
        assert uniform is not None
        logits = evidence.decisions
        self.go = (uniform < torch.sigmoid(logits)).to(logits.dtype)
        self.present = self.go.cumprod(-1)
        self.asked = pad(self.present, (1, 0), value=1.0)[:, :-1]
        self.log_q = self.asked * self._log_probability(logits)
        self.log_p = self.asked * self._log_probability(evidence.prior)

    def _log_probability(self, logits: Tensor) -> Tensor:
        return logsigmoid(torch.where(self.present > 0, logits, -logits))

    def log_likelihood(self, evidence: Evidence) -> Tensor:
        """Return log p(x | N objects), ``[B]``."""
        n = self.present.sum(-1, keepdim=True).long()
        return evidence.log_likelihood.gather(-1, n)[:, 0]

    def elbo_terms(self, evidence: Evidence) -> Estimate:
        """Return the negative ELBO's terms at this N; log q has no gradient here, whose mean is 0."""
        k = self.present.shape[-1]
        weights = one_hot(self.present.sum(-1).long(), k + 1).to(self.present.dtype)  # [B, K + 1]
        kl_count = (self.log_q.detach() - self.log_p).sum(-1)
        return elbo_terms(evidence, weights, self.present, kl_count)

    def counts_if_gone_on(self) -> Tensor:
        """Return what N would be if decision t said "go" and the later ones were as drawn: ``[B, K]``."""
        more = torch.zeros_like(self.go[:, 0])
        counts = []
        for t in reversed(range(self.go.shape[-1])):
            counts.append(more + t + 1)
            more = self.go[:, t] * (1 + more)
        return torch.stack(counts[::-1], dim=-1).long()


def elbo_terms(evidence: Evidence, weights: Tensor, exists: Tensor, kl_count: Tensor) -> Estimate:
    """Return the negative ELBO's terms with the counts weighted.

    Args:
        evidence: Of B images.
        weights: Of n = 0..K, ``[B, K + 1]``, summing to 1.
        exists: Their tail sums: how far object t exists, ``[B, K]``.
        kl_count: ``[B]``.
    """
    latents = {f"kl_{name}": (exists * latent.kl()).sum(-1) for name, latent in evidence.latents.items()}
    nll = -(weights * evidence.log_likelihood).sum(-1)
    return Estimate({"negative_log_likelihood": nll, "kl_count": kl_count, **latents}, exists)
