from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Independent, Normal

from reference_models.parts.objects import estimators
from reference_models.parts.objects.counts import at_least, stick_breaking
from reference_models.parts.objects.evidence import Evidence, Latent

K = 3
LOGITS = torch.tensor([0.4, -0.3, 0.8], dtype=torch.float64)
PRIOR = torch.tensor([-0.5, 0.2, -1.0], dtype=torch.float64)
LOG_LIKELIHOOD = torch.tensor([-3.0, -0.5, 0.4, -2.0], dtype=torch.float64)
LOCATIONS = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)


def evidence(parameters: Tensor, rows: int, baseline: Tensor | None = None, seed: int = 0) -> Evidence:
    """Return the same evidence in every row; the first K parameters are decisions, the others locations."""
    decisions, locations = parameters.expand(rows, 2 * K).split(K, dim=-1)
    q = Independent(Normal(locations[..., None], torch.full((rows, K, 1), 0.7, dtype=torch.float64)), 1)
    noise = torch.randn(rows, K, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    z = locations[..., None] + 0.7 * noise
    # The likelihood depends on where the objects are, so that it has a gradient of its own.
    moved = torch.cat([torch.zeros(rows, 1, dtype=torch.float64), -0.1 * locations.square().cumsum(-1)], -1)
    return Evidence(
        decisions=decisions,
        prior=PRIOR[None],
        latents={"where": Latent(q, z)},
        log_likelihood=LOG_LIKELIHOOD + moved,
        relaxed=lambda presence: -(presence * locations.square()).sum(-1),
        baseline=baseline,
    )


def parameters() -> Tensor:
    return torch.cat([LOGITS, LOCATIONS]).requires_grad_()


def gradient(
    estimator: estimators.Estimator, rows: int, baseline: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the mean gradient over draws, and its standard error, ``[2 K]`` each."""
    each = parameters().detach().repeat(rows, 1).requires_grad_()
    single = evidence(parameters(), 1)
    e = evidence(parameters(), rows * estimator.particles, baseline)
    decisions, locations = each.repeat_interleave(estimator.particles, 0).split(K, dim=-1)
    q = Independent(Normal(locations[..., None], torch.full_like(locations, 0.7)[..., None]), 1)
    z = locations[..., None] + (e.latents["where"].z - LOCATIONS[:, None]).detach()
    moved = torch.cat([torch.zeros_like(locations[:, :1]), -0.1 * locations.square().cumsum(-1)], -1)
    e = Evidence(
        decisions, single.prior, {"where": Latent(q, z)}, LOG_LIKELIHOOD + moved, single.relaxed, baseline
    )
    uniform = torch.rand(
        rows * estimator.particles, K, dtype=torch.float64, generator=torch.Generator().manual_seed(7)
    )
    terms = estimator(e, uniform).terms
    total = sum(term for name, term in terms.items() if name != "baseline")
    (found,) = torch.autograd.grad(total.sum(), each)
    return found.mean(0), found.std(0) / math.sqrt(rows)


def exact() -> Tensor:
    """Return the gradient of the negative ELBO, summed over counts by hand."""
    p = parameters()
    e = evidence(p, 1)
    q, prior = Bernoulli(logits=p[:K]), Bernoulli(logits=PRIOR)
    total = torch.zeros((), dtype=torch.float64)
    for n in range(K + 1):
        taken = torch.tensor([1.0] * n + [0.0] * (K - n), dtype=torch.float64)[: n + 1]
        log_q = q.log_prob(torch.cat([taken, taken.new_zeros(K - len(taken))]))[: n + 1].sum()
        log_p = prior.log_prob(torch.cat([taken, taken.new_zeros(K - len(taken))]))[: n + 1].sum()
        kl = 0.5 * (p[K : K + n].square() + 0.49 - 1 - math.log(0.49)).sum()
        total = total + log_q.exp() * (log_q - log_p + kl - e.log_likelihood[0, n])
    (found,) = torch.autograd.grad(total, p)
    return found


def test_enumeration_is_exact() -> None:
    p = parameters()
    terms = estimators.Enumeration()(evidence(p, 1), None).terms
    (found,) = torch.autograd.grad(sum(terms.values()).sum(), p)
    torch.testing.assert_close(found, exact(), rtol=1e-10, atol=1e-10)


def test_a_prior_beyond_single_precision_costs_its_nats() -> None:
    e = evidence(parameters(), 1)
    far = Evidence(
        e.decisions.float(), torch.full((1, K), -40.0), e.latents, e.log_likelihood.float(), e.relaxed
    )
    kl = estimators.Enumeration()(far, None).terms["kl_count"]
    q = stick_breaking(LOGITS)
    expected = (
        q.probs * (q.logits - stick_breaking(torch.full((K,), -40.0, dtype=torch.float64)).logits)
    ).sum()
    assert kl.item() == pytest.approx(expected.item(), rel=1e-5)  # p(3 objects) is 1e-52


@pytest.mark.parametrize(
    ("estimator", "with_baseline"),
    [
        (estimators.ScoreFunction(), False),
        (estimators.ScoreFunction(), True),
        (estimators.Nvil().eval(), True),
        (estimators.MeasureValued(), False),
    ],
    ids=["score", "baseline", "nvil", "mvd"],
)
def test_mean_gradient_is_that_of_enumeration(estimator: estimators.Estimator, with_baseline: bool) -> None:
    rows = 200_000
    baseline = torch.tensor([[1.7, 0.9, 1.4]], dtype=torch.float64).expand(rows, K) if with_baseline else None
    mean, error = gradient(estimator, rows, baseline)
    assert (error > 0).any()
    assert ((mean - exact()).abs() < 4.5 * error + 1e-9).all(), (mean, exact(), error)


def test_a_good_baseline_and_mvd_lower_the_variance() -> None:
    rows = 50_000
    expected = torch.tensor([[1.75, 0.9, 2.1]], dtype=torch.float64).expand(rows, K)
    _, plain = gradient(estimators.ScoreFunction(), rows)
    _, helped = gradient(estimators.ScoreFunction(), rows, expected)
    _, measured = gradient(estimators.MeasureValued(), rows)
    assert helped[:K].norm() < plain[:K].norm()
    assert measured[:K].norm() < plain[:K].norm()


def test_the_best_baseline_is_the_expected_cost() -> None:
    level = torch.zeros(1, K, dtype=torch.float64, requires_grad=True)
    rows = 100_000
    e = evidence(parameters().detach(), rows, level.expand(rows, K))
    uniform = torch.rand(rows, K, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    term = estimators.ScoreFunction()(e, uniform).terms["baseline"].mean()
    (slope,) = torch.autograd.grad(term, level)
    q = stick_breaking(LOGITS)
    kl = e.kl()[0]
    cost = torch.cat([kl.new_zeros(1), kl.cumsum(0)]) + q.logits - stick_breaking(PRIOR).logits
    expected_first = (q.probs * (cost - e.log_likelihood[0])).sum()  # decision 1 pays for everything
    assert slope[0, 0].item() == pytest.approx(-2 * expected_first.item(), rel=0.02)


def test_vimco_is_unbiased_for_its_bound() -> None:
    s, rows = 2, 200_000
    mean, error = gradient(estimators.Vimco(s), rows)
    p = parameters()
    log_q, log_p = stick_breaking(p[:K]).logits, stick_breaking(PRIOR).logits
    # z at a grid of quantiles, the same for both particles' integrals: the expectation by brute force
    points, weights = _hermite(7)
    bound = torch.zeros((), dtype=torch.float64)
    singles = []
    for n in range(K + 1):
        moved = -0.1 * p[K : K + n].square().sum()
        for nodes in itertools.product(range(len(points)), repeat=n):
            z = p[K : K + n] + 0.7 * points[list(nodes)] if n else p[:0]
            ratio = (Normal(p[K : K + n], 0.7).log_prob(z) - Normal(0.0, 1.0).log_prob(z)).sum()
            weight = weights[list(nodes)].prod() if n else torch.ones((), dtype=torch.float64)
            singles.append((log_q[n] + weight.log(), LOG_LIKELIHOOD[n] + moved + log_p[n] - log_q[n] - ratio))
    log_mass, log_weight = (torch.stack(values) for values in zip(*singles, strict=True))
    pairs = torch.logaddexp(log_weight[:, None], log_weight[None]) - math.log(2)
    bound = ((log_mass[:, None] + log_mass[None]).exp() * pairs).sum()
    (expected,) = torch.autograd.grad(-bound, p)
    assert ((mean - expected).abs() < 4.5 * error + 2e-3).all(), (mean, expected, error)


def _hermite(n: int) -> tuple[Tensor, Tensor]:
    import numpy as np

    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    return torch.as_tensor(nodes), torch.as_tensor(weights / weights.sum())


def test_concrete_tends_to_whole_objects_as_it_cools() -> None:
    rows = 4000
    e = evidence(parameters().detach(), rows)
    uniform = torch.rand(rows, K, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    exists = estimators.Concrete(temperature=1e-3, stop=0.5)(e, uniform).exists
    assert ((exists < 1e-3) | (exists > 1 - 1e-3)).double().mean() > 0.99
    torch.testing.assert_close(exists.mean(0), at_least(stick_breaking(LOGITS)), atol=0.04, rtol=0)


def test_straight_through_draws_whole_objects_and_has_a_gradient() -> None:
    p = parameters()
    e = evidence(p, 50)
    uniform = torch.rand(50, K, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    estimate = estimators.Concrete(temperature=0.5, straight_through=True)(e, uniform)
    assert set(estimate.exists.unique().tolist()) <= {0.0, 1.0}
    (slope,) = torch.autograd.grad(estimate.terms["negative_log_likelihood"].sum(), p)
    assert (slope[:K] != 0).any()


def test_concrete_density_integrates_to_one() -> None:
    concrete = estimators.Concrete(temperature=0.4)
    y = torch.linspace(-60, 60, 200_001, dtype=torch.float64)
    density = concrete._log_density(y, torch.tensor(0.7, dtype=torch.float64)).exp()
    assert torch.trapezoid(density, y).item() == pytest.approx(1, abs=1e-6)


def test_score_terms_are_worth_nothing() -> None:
    e = evidence(parameters(), 100)
    uniform = torch.rand(100, K, dtype=torch.float64)
    for estimator in (estimators.ScoreFunction(), estimators.MeasureValued()):
        assert (estimator(e, uniform).terms["score"] == 0).all()


def test_nvil_learns_its_moments_in_training_only() -> None:
    nvil, e = estimators.Nvil(memory=0.0), evidence(parameters(), 1000)
    uniform = torch.rand(1000, K, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    nvil.eval()(e, uniform)
    assert nvil.mean.item() == 0
    nvil.train()(e, uniform)
    assert nvil.mean.item() != 0
    assert nvil.variance.item() > 0


def test_a_single_particle_is_no_vimco() -> None:
    with pytest.raises(ValueError, match="at least 2 particles, got 1"):
        estimators.Vimco(1)
