"""Variance of gradient estimators: closed forms, two-pass references, and laws."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import ncx2
from torch import nn

from metrics import gradient_variance
from metrics.estimators import parameters_by_prefix

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def double(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def normal(generator, *size):
    return torch.randn(*size, generator=generator, dtype=torch.float64)


def noisy(theta, mean, sd):
    """A loss whose gradient is normal with this mean and sd in every component."""
    return lambda generator: (theta * (mean + sd * normal(generator, len(theta)))).sum()


# -- closed forms


def test_a_gaussian_gradient_has_the_variances_of_theory():
    d, sd, mean = 100, math.sqrt(4.5), 1.0
    theta = double(*np.zeros(d))
    found = gradient_variance(noisy(theta, mean, sd), {"theta": [theta]}, draws=1000)["theta"]
    law = ncx2(d, d * mean**2 / sd**2)  # of |g|^2 / sd^2
    squared = sd**2 * law.mean()
    norm = sd * law.expect(np.sqrt)
    assert abs(found.trace - d * sd**2) < 4 * found.trace_stderr
    assert abs(found.variance_of_norm - (squared - norm**2)) < 4 * found.variance_of_norm_stderr
    assert found.mean_norm == pytest.approx(norm, rel=0.01)
    assert found.norm_of_mean == pytest.approx(math.sqrt(d) * mean, rel=0.05)
    assert (found.draws, found.size) == (1000, d)
    assert found.trace > 80 * found.variance_of_norm  # the norm hides nearly all of the noise


def score_function(theta, baseline):
    """Loss whose gradient is that of E x^2, x ~ N(theta, 1), by the score function."""

    def loss(generator):
        x = theta.detach() + normal(generator, 1)
        return ((x**2 - baseline) * (-0.5 * (x - theta) ** 2)).sum()

    return loss


def test_the_score_function_has_its_known_variance_and_a_baseline_reduces_it():
    theta = double(3.0)
    plain, better = (
        gradient_variance(score_function(theta, baseline), {"phi": [theta]}, draws=1500)["phi"]
        for baseline in (0.0, 3.0**2 + 1)
    )
    t = 3.0
    assert abs(plain.trace - (t**4 + 14 * t**2 + 15)) < 4 * plain.trace_stderr
    assert abs(better.trace - (8 * t**2 + 10)) < 4 * better.trace_stderr
    assert plain.trace - better.trace > 3 * math.hypot(plain.trace_stderr, better.trace_stderr)
    assert abs(plain.norm_of_mean - 2 * t) < 4 * math.sqrt(plain.trace / 1500)  # both are unbiased
    assert abs(better.norm_of_mean - 2 * t) < 4 * math.sqrt(better.trace / 1500)


def test_both_figures_and_their_errors_are_unbiased_even_of_few_draws():
    theta = double(0.0, 0.0, 0.0)
    loss = noisy(theta, 2.0, 1.5)
    found = [gradient_variance(loss, {"t": [theta]}, draws=3, seed=seed)["t"] for seed in range(400)]
    traces = np.array([f.trace for f in found])
    assert abs(traces.mean() - 3 * 1.5**2) < 4 * traces.std(ddof=1) / 20
    many = [gradient_variance(loss, {"t": [theta]}, draws=60, seed=seed)["t"] for seed in range(60)]
    for name in ("trace", "variance_of_norm"):
        spread = np.std([getattr(f, name) for f in many], ddof=1)
        claimed = np.mean([getattr(f, f"{name}_stderr") for f in many])
        assert 0.7 < claimed / spread < 1.4


# -- against two passes over all gradients


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.encoder2, self.decoder = nn.Linear(3, 2), nn.Linear(2, 2), nn.Linear(2, 3)
        self.dropout = nn.Dropout(0.5)

    def loss(self, x, generator):
        code = self.encoder2(self.encoder(x))
        code = code + torch.randn(code.shape, generator=generator)
        return ((self.decoder(self.dropout(code)) - x) ** 2).sum()


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Model()


X = torch.linspace(-1, 1, 12).reshape(4, 3)


def recorded(model, draws, seed=0):
    """All gradients of all parameters, ``[draws, D]``, as `gradient_variance` meets them."""
    rows = []

    def loss(generator):
        value = model.loss(X, generator)
        gradients = torch.autograd.grad(value, list(model.parameters()), retain_graph=True)
        rows.append(torch.cat([g.reshape(-1) for g in gradients]).double().numpy())
        return value

    groups = {"all": list(model.parameters())}
    return gradient_variance(loss, groups, draws=draws, seed=seed)["all"], np.stack(rows)


def test_streaming_equals_two_passes(model):
    found, g = recorded(model, 50)
    norms = np.linalg.norm(g, axis=1)
    assert found.trace == pytest.approx(np.trace(np.cov(g.T)), rel=1e-12)
    assert found.variance_of_norm == pytest.approx(norms.var(ddof=1), rel=1e-12)
    assert found.mean_norm == pytest.approx(norms.mean(), rel=1e-12)
    assert found.norm_of_mean == pytest.approx(np.linalg.norm(g.mean(0)), rel=1e-12)
    unbiased = len(g) / (len(g) - 1) * ((norms**2).mean() - np.linalg.norm(g.mean(0)) ** 2)
    assert found.trace == pytest.approx(unbiased, rel=1e-9)


def test_a_small_variance_upon_a_large_mean_is_not_lost():
    theta = double(0.0, 0.0)
    found = gradient_variance(noisy(theta, 1e7, 1e-3), {"t": [theta]}, draws=500)["t"]
    assert found.trace == pytest.approx(2e-6, rel=0.2)


def test_draw_i_depends_on_seed_and_i_alone(model):
    _, five = recorded(model, 5)
    torch.rand(3)  # the caller's stream moves on
    _, ten = recorded(model, 10)
    np.testing.assert_array_equal(five, ten[:5])
    assert len(np.unique(ten, axis=0)) == 10
    _, other = recorded(model, 5, seed=1)
    assert (five != other).any(1).all()


def test_streams_gradients_and_parameters_are_left_alone(model):
    before = torch.get_rng_state()
    weights = [p.clone() for p in model.parameters()]
    recorded(model, 3)
    assert torch.equal(before, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))


def test_the_variance_scales_with_the_square_of_the_loss(model):
    groups = {"all": list(model.parameters())}
    summed = gradient_variance(lambda g: model.loss(X, g), groups, draws=20)["all"]
    mean = gradient_variance(lambda g: model.loss(X, g) / 4, groups, draws=20)["all"]
    assert summed.trace == pytest.approx(16 * mean.trace, rel=1e-5)
    assert summed.variance_of_norm == pytest.approx(16 * mean.variance_of_norm, rel=1e-5)


def test_groups_add_up_and_may_overlap(model):
    groups = parameters_by_prefix(model, {"phi": ["encoder", "encoder2"], "theta": "decoder", "all": ""})
    assert [len(g) for g in groups.values()] == [4, 2, 6]
    found = gradient_variance(lambda g: model.loss(X, g), groups, draws=30)
    assert list(found) == ["phi", "theta", "all"]
    assert found["all"].trace == pytest.approx(found["phi"].trace + found["theta"].trace, rel=1e-12)
    assert found["all"].size == found["phi"].size + found["theta"].size == 23


def test_a_prefix_is_a_whole_part_of_a_name(model):
    groups = parameters_by_prefix(model, {"e": "encoder", "w": "encoder.weight"})
    assert [p.shape for p in groups["e"]] == [(2, 3), (2,)]
    assert [p.shape for p in groups["w"]] == [(2, 3)]
    model.decoder.requires_grad_(False)
    with pytest.raises(
        ValueError, match="no trainable parameter begins with 'decoder'; there are encoder, encoder2"
    ):
        parameters_by_prefix(model, {"theta": "decoder"})


def test_no_gradient_in_some_draws_is_zero():
    theta, other = double(1.0), double(2.0)

    def loss(generator):
        used = torch.rand((), generator=generator) < 0.25
        return other.sum() + theta.sum() if used else other.sum()

    found = gradient_variance(loss, {"theta": [theta], "other": [other]}, draws=800)
    share = found["theta"].mean_norm
    assert 0.15 < share < 0.35
    assert found["theta"].trace == pytest.approx(share * (1 - share) * 800 / 799, rel=1e-9)
    assert (found["other"].trace, found["other"].variance_of_norm) == (0, 0)


def test_two_draws_have_no_standard_error():
    theta = double(0.0)
    found = gradient_variance(noisy(theta, 0.0, 1.0), {"t": [theta]}, draws=2)["t"]
    assert found.trace > 0
    assert math.isnan(found.trace_stderr)


def test_it_runs_on_a_reference_model():
    from reference_models.air import AIR

    model = AIR.from_config({}, (50, 50, 1))
    images = torch.zeros(2, 50, 50, 1, dtype=torch.uint8)
    images[:, 10:20, 10:20] = 255
    groups = {"all": [p for p in model.parameters() if p.requires_grad]}
    found = gradient_variance(lambda g: model.loss(images, g).total, groups, draws=3)["all"]
    again = gradient_variance(lambda g: model.loss(images, g).total, groups, draws=3)["all"]
    assert found == again
    assert found.trace > 0


@NEEDS_CUDA
def test_it_runs_on_a_gpu_and_leaves_its_stream_alone():
    theta = torch.zeros(50, device="cuda", requires_grad=True)

    def loss(generator):
        noise = torch.randn(50, device="cuda", generator=generator)
        return (theta * (1 + noise + torch.rand(50, device="cuda") * 0)).sum()

    before = torch.cuda.get_rng_state()
    found, again = (gradient_variance(loss, {"t": [theta]}, draws=400)["t"] for _ in range(2))
    assert found == again
    assert abs(found.trace - 50) < 4 * found.trace_stderr
    assert torch.equal(before, torch.cuda.get_rng_state())


# -- bad input

T = double(1.0)


@pytest.mark.parametrize(
    ("loss", "parameters", "options", "words"),
    [
        (lambda g: T.sum(), {}, {}, "parameters: expected at least one group"),
        (lambda g: T.sum(), {"t": []}, {}, "expected a sequence of tensors, at least one"),
        (lambda g: T.sum(), {"t": T}, {}, "expected a sequence of tensors"),
        (lambda g: T.sum(), {"t": [torch.ones(1)]}, {}, "expected tensors that require a gradient"),
        (lambda g: T.sum(), {"t": [T]}, {"draws": 1}, "draws: expected 2 or more, got 1"),
        (lambda g: T.sum(), {"t": [T]}, {"seed": -1}, "seed: expected 0 or more, got -1"),
        (lambda g: 1.0, {"t": [T]}, {}, "expected a tensor of one number, got float"),
        (lambda g: torch.cat([T, T]), {"t": [T]}, {}, "expected a tensor of one number, got shape"),
        (lambda g: torch.ones(()), {"t": [T]}, {}, "got one without gradient"),
        (lambda g: T.sum(), {"t": [T], "u": [double(1.0)]}, {}, "got no gradient for 'u'"),
        (lambda g: (T * float("nan")).sum(), {"t": [T]}, {}, "got NaN or infinity for 't' in draw 0"),
    ],
)
def test_bad_input_is_refused(loss, parameters, options, words):
    with pytest.raises(ValueError, match=words):
        gradient_variance(loss, parameters, **{"draws": 2, **options})
