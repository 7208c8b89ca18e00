from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from reference_models.parts.objects.counts import (
    at_least,
    doubting,
    geometric_prior,
    presence_of,
    stick_breaking,
)


@pytest.fixture
def logits() -> Tensor:
    return 4 * torch.randn(50, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_posterior_sums_to_one(logits: Tensor) -> None:
    torch.testing.assert_close(stick_breaking(logits).probs.sum(-1), torch.ones(50, dtype=torch.float64))


def test_posterior_is_that_of_the_decisions_one_after_another(logits: Tensor) -> None:
    p = torch.sigmoid(logits[0]).tolist()
    expected = [0.0] * 6
    for decisions in itertools.product([False, True], repeat=5):  # all 2^5, also after the first stop
        weight = math.prod(q if go else 1 - q for q, go in zip(p, decisions, strict=True))
        expected[sum(itertools.takewhile(bool, decisions))] += weight
    torch.testing.assert_close(stick_breaking(logits[0]).probs, torch.tensor(expected, dtype=torch.float64))


def test_presence_is_a_tail_sum_and_never_increases(logits: Tensor) -> None:
    count = stick_breaking(logits)
    presence = at_least(count)
    torch.testing.assert_close(presence, torch.sigmoid(logits).cumprod(-1))
    assert (presence.diff(dim=-1) <= 0).all()
    torch.testing.assert_close(presence.sum(-1), (count.probs * torch.arange(6)).sum(-1))  # E[N]


def test_first_count_slots_and_no_others_are_present(logits: Tensor) -> None:
    count, presence = presence_of(stick_breaking(logits))
    assert ((presence >= 0.5).sum(-1) == count).all()
    assert (presence.diff(dim=-1) <= 0).all()
    torch.testing.assert_close(count, stick_breaking(logits).probs.argmax(-1))


def test_presence_follows_the_mode_where_the_median_is_another() -> None:
    probabilities = torch.tensor([0.4, 0.3, 0.3])
    count, presence = presence_of(torch.distributions.Categorical(probs=probabilities))
    assert count == 0
    assert (presence < 0.5).all()


def test_certain_decisions_have_finite_divergence_and_gradient() -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 0.0]], requires_grad=True)
    prior = geometric_prior(2, 1e-8)
    divergence = kl_divergence(stick_breaking(logits.double()), prior)
    divergence.sum().backward()
    assert divergence.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_each_object_costs_the_same() -> None:
    log_p = geometric_prior(9, 1e-4).logits  # p(9) is far below the type's epsilon
    torch.testing.assert_close(log_p.diff(), torch.full((9,), math.log(1e-4), dtype=torch.float64))
    torch.testing.assert_close(log_p.exp().sum(), torch.tensor(1.0, dtype=torch.float64))


def test_doubt_turns_each_decision_with_its_probability(logits: Tensor) -> None:
    p = torch.sigmoid(logits)
    for doubt in (0.0, 1e-6, 0.1, 0.4):
        turned = torch.sigmoid(doubting(logits, torch.tensor(doubt, dtype=torch.float64)))
        torch.testing.assert_close(turned, (1 - doubt) * p + doubt * (1 - p))
    torch.testing.assert_close(doubting(logits, torch.tensor(0.0, dtype=torch.float64)), logits)


def test_doubt_of_certain_decisions_has_a_finite_gradient() -> None:
    for doubt in (0.0, 0.025):
        logits = torch.tensor([-200.0, -20.0, 0.0, 20.0, 200.0], requires_grad=True)
        doubting(logits, torch.tensor(doubt)).sum().backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
