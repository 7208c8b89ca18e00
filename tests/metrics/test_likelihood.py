"""Likelihood: units, the floor, bounds, and which kinds may be compared."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.special import logsumexp

from metrics import (
    LikelihoodKind,
    bits_per_dimension,
    floor_corrected,
    gaussian_floor,
    importance_weighted_bound,
    negative_log_likelihood,
    require_comparable,
)
from multiobj_data.errors import UsageError
from multiobj_data.scenes import Prediction


def test_uniform_bytes_cost_eight_bits_a_dimension():
    shape = (5, 4, 3)
    nats = -math.prod(shape) * math.log(256)
    assert bits_per_dimension(np.array([nats]), shape) == pytest.approx(8)
    assert negative_log_likelihood(np.array([nats])) == -nats


def test_bits_need_an_image_shape():
    with pytest.raises(ValueError, match=r"expected \(H, W, C\)"):
        bits_per_dimension(np.zeros(1), (5, 4))


# the floor


@pytest.mark.parametrize("sd", [0.1, 0.3, 0.7])
def test_the_floor_is_what_a_perfect_reconstruction_costs(rng, sd):
    image = rng.random((5, 4, 3))
    best = scipy.stats.norm(image, sd).logpdf(image).sum()
    assert gaussian_floor(image.shape, sd) == pytest.approx(-best)
    assert floor_corrected(np.array([best]), image.shape, sd) == pytest.approx(0, abs=1e-9)
    off = scipy.stats.norm(image + 0.1, sd).logpdf(image).sum()
    assert floor_corrected(np.array([off]), image.shape, sd) == pytest.approx(60 * 0.1**2 / (2 * sd**2))


def test_the_floor_of_genesis_and_sri():
    shape = (64, 64, 3)
    assert gaussian_floor(shape, 0.7) / math.prod(shape) == pytest.approx(0.56226, abs=1e-5)
    assert bits_per_dimension(np.array([-gaussian_floor(shape, 0.7)]), shape) == pytest.approx(
        0.81117, abs=1e-5
    )
    assert gaussian_floor(shape, 0.1, normalised=False) / math.prod(shape) == pytest.approx(-2.3026, abs=1e-4)
    assert gaussian_floor((50, 50, 1), 0.3) == pytest.approx(-712.6, abs=0.1)  # AIR: a density, so positive


def test_below_the_floor_there_is_nothing():
    shape, sd = (8, 8, 3), 0.7
    floor = gaussian_floor(shape, sd)
    with pytest.raises(ValueError, match="check sd and normalised"):
        floor_corrected(np.array([-floor, -floor + 1]), shape, sd)
    dropped = -gaussian_floor(shape, sd, normalised=False)
    with pytest.raises(ValueError, match="with its constant"):
        floor_corrected(np.array([dropped]), shape, sd)
    assert floor_corrected(np.array([dropped]), shape, sd, normalised=False) == 0
    rounded = floor_corrected(np.array([-floor + 1e-4, np.nan]), shape, sd)  # single precision
    assert rounded[0] == 0
    assert np.isnan(rounded[1])


@pytest.mark.parametrize("sd", [0, -1, math.nan, math.inf])
def test_a_floor_needs_a_standard_deviation(sd):
    with pytest.raises(ValueError, match="sd: expected a finite standard deviation"):
        gaussian_floor((2, 2, 1), sd)


# importance-weighted bounds


def test_the_bound_is_the_log_of_the_mean_weight(rng):
    weights = rng.normal(-7000, 30, (20, 8))  # would underflow without a shift
    weights[3, :4] = -np.inf
    np.testing.assert_allclose(importance_weighted_bound(weights), logsumexp(weights, axis=1) - math.log(8))
    np.testing.assert_allclose(
        importance_weighted_bound(torch.tensor(weights)).numpy(), importance_weighted_bound(weights)
    )
    np.testing.assert_array_equal(importance_weighted_bound(weights[:, -1:]), weights[:, -1])


def test_the_bound_rises_with_the_number_of_samples(rng):
    weights = rng.normal(0, 3, (30, 5))
    means = [
        np.mean(
            [
                importance_weighted_bound(weights[:, list(chosen)])
                for chosen in itertools.combinations(range(5), k)
            ],
            0,
        )
        for k in range(1, 6)
    ]
    assert (np.diff(means, axis=0) >= 0).all()  # Burda et al. 2016, theorem 1, on subsets of the same draws
    assert (np.diff(means, axis=0) > 0.01).any()


def test_samples_without_weight_and_unknown_ones():
    weights = np.array([[-np.inf, -np.inf], [np.nan, 0.0]])
    for answer in (importance_weighted_bound(weights), importance_weighted_bound(torch.tensor(weights))):
        assert answer[0] == -math.inf
        assert math.isnan(answer[1])
    for bad, says in ((np.full((1, 2), np.inf), r"\+inf"), (np.zeros((2, 0)), "one sample or more")):
        with pytest.raises(ValueError, match=says):
            importance_weighted_bound(bad)


# what may be compared

SRI = LikelihoodKind("elbo", "density", normalised=True, sd=0.7, mixture="per-channel", pixel_range=1.0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"bound": "exact"}, "an exact value, an ELBO"),
        ({"bound": "iwae-5"}, "bounds of different k"),
        ({"space": "discrete"}, "8 bits a dimension"),
        ({"space": "cross-entropy"}, "different units"),
        ({"space": "dequantised"}, "different units"),
        ({"normalised": False}, "leaves out the constants"),
        ({"mixture": "joint"}, "jointly over channels"),
        ({"pixel_range": 255.0}, "different range"),
        ({"extra_terms": ("kl_rollout",)}, "terms that the other does not"),
    ],
)
def test_kinds_that_cannot_be_compared_are_refused(change, says):
    plain = LikelihoodKind(**vars(SRI) | {"extra_terms": ()})
    other = LikelihoodKind(**vars(plain) | change)
    for runs in ({"sri": plain, "mine": other}, {"mine": other, "sri": plain}):
        with pytest.raises(UsageError, match=says) as refused:
            require_comparable(runs)
        assert all(name in str(refused.value) for name in ("sri (", "mine ("))
        assert str(refused.value).count("\n") == 0


def test_unnormalised_figures_of_another_sd_are_refused_and_normalised_ones_are_not():
    def kind(sd, normalised):
        return LikelihoodKind("elbo", "density", normalised=normalised, sd=sd)

    require_comparable({"a": kind(0.1, True), "b": kind(0.7, True)})
    require_comparable({"a": kind(0.1, False), "b": kind(0.1, False)})
    with pytest.raises(UsageError, match="ln sd"):
        require_comparable({"a": kind(0.1, False), "b": kind(0.7, False)})


def test_what_is_alike_compares_and_what_is_unsaid_is_reported():
    gaussian = LikelihoodKind("elbo", "density", normalised=True, sd=0.1, mixture="none", pixel_range=1.0)
    assert require_comparable({"a": SRI, "b": gaussian}) == ("extra_terms",)
    assert require_comparable({"a": "elbo", "b": "iwae-1"})[0] == "space"
    assert "bound" not in require_comparable({"a": "elbo", "b": SRI})
    assert require_comparable({}) == ()


def test_every_pair_of_runs_is_looked_at():
    with pytest.raises(UsageError, match="second .elbo. and third .exact."):
        require_comparable({"second": "elbo", "third": "exact"})
    density, levels = LikelihoodKind("elbo", "density"), LikelihoodKind("elbo", "discrete")
    with pytest.raises(UsageError, match="first .elbo, density. and third .elbo, discrete."):
        require_comparable(
            {"first": density, "second": "elbo", "third": levels}
        )  # the second agrees with both


@pytest.mark.parametrize(
    "arguments",
    [
        {"bound": "guess"},
        {"bound": "iwae-0"},
        {"space": "nats"},
        {"mixture": "both"},
        {"sd": 0},
        {"pixel_range": -1},
        {"sd": "0.7"},
        {"normalised": "yes"},
        {"extra_terms": ["kl_rollout"]},
        {"extra_terms": "kl_rollout"},
        {"bound": 5},
    ],
)
def test_kinds_that_do_not_exist_are_refused(arguments):
    with pytest.raises(UsageError, match="likelihood .*: expected"):
        LikelihoodKind(**{"bound": "elbo"} | arguments)


def test_a_kind_reads_as_a_phrase():
    assert str(SRI) == "elbo, density over pixels of range 1, normalised, mixture per-channel"
    unnormalised = LikelihoodKind("iwae-5", "density", normalised=False, sd=0.3, extra_terms=("kl_rollout",))
    assert str(unnormalised) == "iwae-5, density, without constants, sd 0.3, with kl_rollout"


def test_a_kind_is_read_from_what_predictions_say():
    text = "elbo; space=density; normalised=true; sd=0.7; mixture=per-channel; pixel_range=1; extra_terms=a+b"
    assert LikelihoodKind.parse(text) == LikelihoodKind(
        "elbo", "density", True, 0.7, "per-channel", 1.0, ("a", "b")
    )
    Prediction(log_likelihood=np.zeros(1), likelihood_kind=text)
    assert LikelihoodKind.parse("iwae-5") == LikelihoodKind("iwae-5")
    with pytest.raises(UsageError, match="different units"):
        require_comparable({"air": "elbo; space=density", "asr": "elbo; space=cross-entropy"})
    for bad, says in (
        ("elbo; colour=red", "no fact 'colour'"),
        ("elbo; sd=big", "cannot be read"),
        ("guess", "bound"),
    ):
        with pytest.raises(UsageError, match=says):
            LikelihoodKind.parse(bad)
