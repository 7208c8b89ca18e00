"""Expectation-maximisation: an alternative to the gradient, without a learning rate.

The expected use of a weight is the derivative of the log likelihood with respect to its logarithm, that of a leaf with
respect to its log density (Peharz et al. 2020, "Einsum networks", sec. 3.5; Darwiche 2003): one backward pass is the
expectation step. The maximisation step is closed: weights in proportion to their use, Gaussians at their weighted
moments, variances within their bounds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from reference_models.parts.precision import product
from reference_models.parts.spn.leaves import seen
from reference_models.parts.spn.network import SumProductNetwork

MARGIN = 1e-6
"""How far inside its bounds a variance stays, as a share of their distance: at them the sigmoid has no inverse."""


@dataclass(frozen=True)
class Expectation:
    """Expected uses, summed over images.

    Attributes:
        log_likelihood: Nats, a scalar.
        images: How many.
        weights: Use of each weight, level by level as in `SumProductNetwork.log_weights`.
        moments: Use of each Gaussian, and its use times x and times x^2: ``[3, R, I, D]``.
    """

    log_likelihood: Tensor
    images: int
    weights: list[Tensor]
    moments: Tensor

    def __add__(self, other: Expectation) -> Expectation:
        weights = [one + two for one, two in zip(self.weights, other.weights, strict=True)]
        return Expectation(
            self.log_likelihood + other.log_likelihood,
            self.images + other.images,
            weights,
            self.moments + other.moments,
        )


def em_step(network: SumProductNetwork, batches: Iterable[tuple[Tensor, Tensor | None]]) -> float:
    """Do one step of expectation-maximisation on all batches together; the likelihood of them never falls.

    Args:
        network: Changed in place.
        batches: ``(x [B, D], visible [B, P] or None)`` each, at least one.

    Returns:
        The mean log likelihood before the step, in nats.
    """
    total: Expectation | None = None
    for x, visible in batches:
        part = expectation(network, x, visible)
        total = part if total is None else total + part
    if total is None or total.images == 0:
        raise ValueError("em_step: expected at least one image, got none.")
    maximise(network, total)
    return float(total.log_likelihood) / total.images


def expectation(network: SumProductNetwork, x: Tensor, visible: Tensor | None = None) -> Expectation:
    """Return how much the images use each weight and each Gaussian of the network."""
    with torch.no_grad():
        leaves, log_weights = network.leaves(x, visible), network.log_weights()
    with torch.enable_grad():
        inputs = [leaves.requires_grad_(), *(weights.requires_grad_() for weights in log_weights)]
        log_likelihood = network.mix(leaves, log_weights).sum()
        uses, *weights = torch.autograd.grad(log_likelihood, inputs)  # uses: [R, K, I, B]
    return Expectation(log_likelihood.detach(), len(x), weights, _moments(network, uses, x, visible))


@torch.no_grad()
def _moments(network: SumProductNetwork, uses: Tensor, x: Tensor, visible: Tensor | None) -> Tensor:
    """Return the sums over images of ``use``, ``use x`` and ``use x^2``: ``[3, R, I, D]``."""
    members = network.leaves.members()
    x = x.to(uses.dtype)
    m = torch.ones_like(x) if visible is None else network.leaves.of_values(visible)
    x, m = seen(x, m)
    sums = [product(uses.flatten(0, 2), feature) for feature in (m, m * x, m * x * x)]  # [R * K * I, D]
    return torch.stack([(each.unflatten(0, uses.shape[:3]) * members).sum(1) for each in sums])


@torch.no_grad()
def maximise(network: SumProductNetwork, expected: Expectation) -> None:
    """Set the weights and Gaussians to what makes the expected uses most probable; unused ones stay."""
    for logits, uses in zip([*network.logits, network.root_logits], expected.weights, strict=True):
        uses = uses.view_as(logits)
        of_node = uses.sum() if logits is network.root_logits else uses.sum(-1, keepdim=True)
        tiny = torch.finfo(uses.dtype).tiny
        logits.copy_(torch.where(of_node > 0, (uses / of_node.clamp(min=tiny)).clamp(min=tiny).log(), logits))
    leaves, config = network.leaves, network.config
    use, first, second = expected.moments
    used = use > torch.finfo(use.dtype).tiny ** 0.5
    mean = torch.where(used, first / use, leaves.mean)
    share = ((second / use - mean.square()) - config.min_variance) / (
        config.max_variance - config.min_variance
    )
    raw = share.clamp(MARGIN, 1 - MARGIN).logit()
    leaves.mean.copy_(mean)
    leaves.raw_variance.copy_(torch.where(used, raw, leaves.raw_variance))
