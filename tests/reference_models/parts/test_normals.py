from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from reference_models.parts.nets import (
    diagonal_normal,
    kl_to_standard_normal,
    normal_from,
    reparameterise,
)


@pytest.fixture
def parameters() -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return 3 * torch.randn(4, 2, 10, dtype=torch.float64, generator=rng)


def test_divergence_from_the_standard_normal_is_that_of_torch(parameters: Tensor) -> None:
    parameters.requires_grad_()
    q = normal_from(parameters)
    standard = diagonal_normal(torch.zeros_like(q.mean), torch.ones_like(q.mean))
    ours, expected = kl_to_standard_normal(q), kl_divergence(q, standard)
    torch.testing.assert_close(ours, expected)
    gradients = [torch.autograd.grad(kl.sum(), parameters, retain_graph=True)[0] for kl in (ours, expected)]
    torch.testing.assert_close(*gradients)


def test_sample_has_the_noise_that_was_asked_for(parameters: Tensor) -> None:
    q = normal_from(parameters)
    noise = torch.randn(4, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close((reparameterise(parameters, noise) - q.mean) / q.stddev, noise)
    torch.testing.assert_close(reparameterise(parameters, torch.zeros_like(noise)), q.mean)
