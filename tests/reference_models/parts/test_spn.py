"""Laws of sum-product networks, on networks so small that everything can be enumerated."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from reference_models.parts.spn import SPNConfig, SumProductNetwork, em_step
from reference_models.parts.spn.em import expectation, maximise
from reference_models.parts.spn.layers import log_einsum_exp

TINY = SPNConfig(
    pixels=5, replicas=2, depth=2, leaves=2, sums=3, min_variance=0.2, max_variance=0.9, channels=2, seed=3
)


def network_of(config: SPNConfig = TINY, spread: float = 1.0, seed: int = 0) -> SumProductNetwork:
    """Return a network in float64 whose parameters are far from their initial values."""
    network = SumProductNetwork(config).double()
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(spread * torch.randn(parameter.shape, generator=rng, dtype=torch.float64))
    return network


def rand(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def trees(network: SumProductNetwork) -> list[tuple[float, int, tuple[int, ...]]]:
    """List all trees of a network of depth 2: log of their weights, replica, leaf of each leaf region."""
    config = network.config
    inner, root = (weights.tolist() for weights in network.log_weights())
    found = []
    for r in range(config.replicas):
        for left, right in itertools.product(range(config.sums), repeat=2):
            for leaves in itertools.product(range(config.leaves), repeat=4):
                weight = root[r][0][0][left * config.sums + right]
                weight += inner[r][0][left][leaves[0] * config.leaves + leaves[1]]
                weight += inner[r][1][right][leaves[2] * config.leaves + leaves[3]]
                found.append((weight, r, leaves))
    return found


def tree_terms(
    network: SumProductNetwork, x: Tensor, visible: Tensor, *, maximise_hidden: bool = False
) -> tuple[Tensor, list[Tensor]]:
    """Return the log joint of one image ``[D]`` with every tree, and the means that each tree paints."""
    config, leaves = network.config, network.leaves
    gaussians, m = Normal(leaves.mean, leaves.variance.sqrt()), visible.repeat(config.channels)
    nats = torch.where(m > 0, m * gaussians.log_prob(x), 0.0)  # [R, I, D]
    if maximise_hidden:
        nats = nats + (1 - m) * gaussians.log_prob(gaussians.mean)
    each, mean, own = nats.tolist(), leaves.mean.detach(), leaves.region_of.tolist()
    joints, means = [], []
    for log_weight, r, chosen in trees(network):
        places = [
            (r, chosen[own[r][p]], c * config.pixels + p)
            for c, p in itertools.product(range(config.channels), range(config.pixels))
        ]
        joints.append(log_weight + sum(each[r][i][value] for r, i, value in places))
        means.append(places)
    return torch.tensor(joints, dtype=torch.float64), [
        mean[tuple(zip(*places, strict=True))] for places in means
    ]


SOME_HIDDEN = torch.tensor([1.0, 0.0, 0.5, 1.0, 0.0], dtype=torch.float64)


@pytest.mark.parametrize("visible", [None, SOME_HIDDEN])
def test_likelihood_is_the_sum_over_all_trees(visible: Tensor | None) -> None:
    network, x = network_of(), 3 * rand(4, 10) - 1
    found = network.log_likelihood(x, None if visible is None else visible.expand(4, 5))
    for image, value in zip(x, found, strict=True):
        joints, _ = tree_terms(network, image, torch.ones(5) if visible is None else visible)
        torch.testing.assert_close(value, joints.logsumexp(0))


def test_the_states_of_a_discrete_domain_sum_to_one() -> None:
    config = replace(TINY, channels=1, replicas=3)
    network = network_of(config)
    p = rand(config.replicas, config.leaves, config.pixels)  # of a 1, in place of the Gaussians
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=5)), dtype=torch.float64)
    pixelwise = torch.where(states.T == 1, p[..., None].log(), (-p[..., None]).log1p())  # [R, I, P, 32]
    own = network.leaves.region_of[:, None] == torch.arange(4)[:, None]  # [R, K, P]
    leaves = torch.einsum("rkp,ripb->rkib", own.double(), pixelwise)
    total = network.mix(leaves, network.log_weights()).logsumexp(0)
    assert total.item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("hidden", [(), (1,), (0, 2)])
def test_density_integrates_to_one(hidden: tuple[int, ...]) -> None:
    config = replace(TINY, pixels=3, depth=1, channels=1, min_variance=0.5)
    axis = torch.arange(-9.0, 9.0, 0.5, dtype=torch.float64)  # sums of Gaussians converge fast
    seen = [p for p in range(3) if p not in hidden]
    grid = torch.cartesian_prod(*[axis] * len(seen)).view(-1, len(seen))
    x, visible = torch.full((len(grid), 3), math.nan, dtype=torch.float64), torch.zeros(len(grid), 3).double()
    x[:, seen], visible[:, seen] = grid, 1.0
    mass = network_of(config).log_likelihood(x, visible).exp().sum() * 0.5 ** len(seen)
    assert mass.item() == pytest.approx(1, abs=1e-9)


def test_a_slice_integrates_to_the_marginal() -> None:
    network = network_of(replace(TINY, channels=1, min_variance=0.5))
    axis = torch.arange(-9.0, 9.0, 0.25, dtype=torch.float64)
    x = rand(1, 5).repeat(len(axis), 1)
    visible = torch.ones_like(x)
    visible[:, 2] = 0
    marginal = network.log_likelihood(x, visible)[0]
    x[:, 2] = axis
    slice_mass = (network.log_likelihood(x).exp().sum() * 0.25).log()
    torch.testing.assert_close(slice_mass, marginal, atol=1e-9, rtol=0)


@pytest.mark.parametrize("config", [TINY, replace(TINY, depth=1), replace(TINY, pixels=9, depth=3)])
def test_hiding_everything_is_certain_and_hiding_nothing_changes_nothing(config: SPNConfig) -> None:
    network, x = network_of(config), rand(3, config.values)
    visible = torch.ones(3, config.pixels, dtype=torch.float64)
    torch.testing.assert_close(network.log_likelihood(x, visible), network.log_likelihood(x))
    certain = network.log_likelihood(torch.full_like(x, math.nan), 0 * visible)
    torch.testing.assert_close(certain, torch.zeros_like(certain), atol=1e-12, rtol=0)


@pytest.mark.parametrize("hidden", [1e30, math.inf, math.nan])
def test_hidden_pixels_change_neither_likelihood_nor_gradients(hidden: float) -> None:
    network = network_of()
    results = []
    for value in (0.3, hidden):
        x = rand(2, 10)
        visible = SOME_HIDDEN.expand(2, 5).clone().requires_grad_()
        x = torch.where(visible.detach().repeat(1, 2) == 0, value, x).requires_grad_()
        log_likelihood = network.log_likelihood(x, visible)
        gradients = torch.autograd.grad(log_likelihood.sum(), [x, visible, *network.parameters()])
        results.append([log_likelihood, *gradients])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    _, of_x, of_visible, *_ = results[0]
    assert (of_x.view(2, 2, 5)[..., SOME_HIDDEN == 0] == 0).all()
    assert (of_visible[:, SOME_HIDDEN == 0] == 0).all()
    assert (of_visible[:, SOME_HIDDEN > 0] != 0).all()


def test_half_visible_scales_the_log_density_of_a_leaf() -> None:
    network, x = network_of(), rand(2, 10)
    half = network.leaves(x, torch.full((2, 5), 0.5, dtype=torch.float64))
    torch.testing.assert_close(half, 0.5 * network.leaves(x))


def test_leaves_are_gaussians() -> None:
    network, x = network_of(), rand(2, 10)
    leaves = Normal(network.leaves.mean, network.leaves.variance.sqrt())  # [R, I, D]
    each = leaves.log_prob(x[:, None, None])  # [B, R, I, D]
    own = (network.leaves.region_of[:, None] == torch.arange(4)[:, None]).repeat(1, 1, 2)  # [R, K, D]
    expected = torch.einsum("rkd,brid->rkib", own.double(), each)
    torch.testing.assert_close(network.leaves(x), expected)
    assert TINY.min_variance < network.leaves.variance.min()
    assert network.leaves.variance.max() < TINY.max_variance


def dense(left: Tensor, right: Tensor, log_weights: Tensor) -> Tensor:
    weights = log_weights.unflatten(2, (left.shape[1], -1))
    each = weights[..., None] + left[:, None, :, None] + right[:, None, None]  # [N, O, I, I, B]
    return each.flatten(2, 3).logsumexp(2)


@pytest.mark.parametrize("scale", [1.0, 30.0, 300.0])
@pytest.mark.parametrize("sums", [1, 4])
def test_log_einsum_exp_is_the_dense_logsumexp(scale: float, sums: int) -> None:
    rng = torch.Generator().manual_seed(0)
    left, right, weights = (
        torch.randn(shape, generator=rng, dtype=torch.float64) * size
        for shape, size in (((3, 5, 7), scale), ((3, 5, 7), scale), ((3, sums, 25), 1.0))
    )
    inputs = [left - 900, right + 50, weights.log_softmax(-1)]
    results = []
    for mix in (log_einsum_exp, dense):
        leaves = [each.clone().requires_grad_() for each in inputs]
        mixed = mix(*leaves)
        cotangent = torch.linspace(-1, 2, mixed.numel(), dtype=torch.float64).view_as(mixed)
        results.append([mixed, *torch.autograd.grad(mixed, leaves, cotangent)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_gradients_are_right() -> None:
    network = network_of(replace(TINY, channels=1))
    names, parameters = zip(*network.named_parameters(), strict=True)

    def likelihood(x: Tensor, visible: Tensor, *parameters: Tensor) -> Tensor:
        state = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(network, state, (x, visible), tie_weights=False)

    network.forward = network.log_likelihood  # type: ignore[method-assign]
    x, visible = rand(1, 5).requires_grad_(), (0.1 + 0.8 * rand(1, 5, seed=2)).requires_grad_()
    assert torch.autograd.gradcheck(
        likelihood, (x, visible, *(p.detach().requires_grad_() for p in parameters))
    )


@pytest.mark.parametrize("visible", [None, torch.ones(4, 784)])
def test_every_parameter_has_a_gradient(visible: Tensor | None) -> None:
    network = SumProductNetwork(SPNConfig(784, 6, 2, 20, 20, 0.12, 0.35))
    network.log_likelihood(rand(4, 784).float(), visible).sum().backward()
    assert all((parameter.grad != 0).double().mean() > 0.99 for parameter in network.parameters())


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (SPNConfig(784, 6, 2, 20, 20, 0.12, 0.35), 286_560),
        (SPNConfig(2500, 3, 1, 6, 3, 0.002, 0.12), 90_108),
    ],
    ids=["object", "background"],
)
def test_supair_has_as_many_parameters_as_the_paper_says(config: SPNConfig, parameters: int) -> None:
    network = SumProductNetwork(config)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    middle = (config.min_variance + config.max_variance) / 2
    assert network.leaves.variance.mean().item() == pytest.approx(middle, rel=0.01)


def test_single_precision_is_good_to_a_hundredth_of_a_nat() -> None:
    network = SumProductNetwork(SPNConfig(2500, 3, 1, 6, 3, 0.002, 0.12))
    x, visible = rand(8, 2500), rand(8, 2500, seed=2).round()
    single = network.log_likelihood(x.float(), visible.float()).double()
    torch.testing.assert_close(single, network.double().log_likelihood(x, visible), rtol=0, atol=0.01)


@pytest.mark.parametrize("visible", [None, torch.ones(2, 10).bfloat16()])
def test_images_of_another_type_are_computed_in_the_networks(visible: Tensor | None) -> None:
    network, x = network_of(replace(TINY, pixels=10, channels=1)), rand(2, 10).bfloat16()
    assert torch.equal(network.log_likelihood(x, visible), network.log_likelihood(x.double(), visible))


def test_reduced_precision_elsewhere_does_not_reach_it() -> None:
    network = SumProductNetwork(SPNConfig(64, 2, 2, 4, 4, 0.002, 0.12))
    results = []
    for reduced in (False, True):
        x, visible = rand(8, 64).float().requires_grad_(), rand(8, 64, seed=2).float()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=reduced):
            log_likelihood = network.log_likelihood(x, visible)
            gradients = torch.autograd.grad(log_likelihood.sum(), [x, *network.parameters()])
        results.append([log_likelihood, *gradients])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("maximise_hidden", [False, True])
def test_mpe_is_the_best_of_all_trees(maximise_hidden: bool) -> None:
    network = network_of(spread=2.0)
    x, visible = 4 * rand(70, 10) - 2, rand(70, 5, seed=2).round()  # more than one chunk
    painted = network.mpe(x, visible, maximise_hidden=maximise_hidden)
    for row in (0, 1, 2, 3, 66, 67, 68, 69):
        joints, means = tree_terms(network, x[row], visible[row], maximise_hidden=maximise_hidden)
        torch.testing.assert_close(painted[row], means[int(joints.argmax())])
    assert torch.equal(network.mpe(x), network.mpe(x, torch.ones_like(visible)))
    assert network.mpe(x[:0]).shape == (0, 10)


def test_the_two_ways_to_explain_hidden_pixels_differ() -> None:
    network = network_of(spread=2.0)
    x, visible = 4 * rand(70, 10) - 2, rand(70, 5, seed=2).round()
    assert not torch.equal(network.mpe(x, visible), network.mpe(x, visible, maximise_hidden=True))


SPIKY = replace(TINY, channels=1, min_variance=0.01, max_variance=0.02)


def shares(values: Tensor, edges: Tensor) -> Tensor:
    return torch.histogram(values, edges).hist / len(values)


def density_shares(log_density: Tensor, grid: Tensor, edges: Tensor) -> Tensor:
    """Return the mass between edges of a density known up to a factor on a fine grid."""
    cell = torch.bucketize(grid, edges) - 1
    mass = torch.zeros(len(edges) - 1, dtype=torch.float64).index_add(
        0, cell, (log_density - log_density.max()).exp()
    )
    return mass / mass.sum()


@pytest.mark.parametrize("config", [SPIKY, replace(SPIKY, depth=1)])
def test_conditional_samples_agree_with_the_conditional(config: SPNConfig) -> None:
    network, n = network_of(config), 40_000
    # What is seen is near what the network makes, or a single tree would explain it.
    x = network.sample(1, torch.Generator().manual_seed(8)) + 0.15
    visible = torch.tensor([[1.0, 0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    hidden_x = torch.where(visible == 0, math.nan, x)
    drawn = network.sample_given(
        hidden_x.expand(n, 5), visible.expand(n, 5), torch.Generator().manual_seed(1)
    )
    assert torch.equal(drawn[:, [0, 2]], x[:, [0, 2]].expand(n, 2))
    edges = torch.linspace(-4, 4, 33, dtype=torch.float64)
    grid = torch.linspace(-4, 4, 8001, dtype=torch.float64)[1:-1]
    for pixel in (1, 3, 4):
        rows, seen = x.repeat(len(grid), 1), visible.repeat(len(grid), 1)
        rows[:, pixel], seen[:, pixel] = grid, 1.0
        expected = density_shares(network.log_likelihood(rows, seen), grid, edges)
        error = (expected * (1 - expected) / n).sqrt()
        assert ((shares(drawn[:, pixel], edges) - expected).abs() < 4.5 * error + 3e-4).all()


def test_unconditional_samples_agree_with_the_joint_of_two_pixels() -> None:
    network, n = network_of(SPIKY), 40_000
    drawn = network.sample(n, torch.Generator().manual_seed(1))
    total, difference = drawn[:, 0] + drawn[:, 3], drawn[:, 0] - drawn[:, 3]
    axis = torch.linspace(-4, 4, 321, dtype=torch.float64)
    x, visible = torch.zeros(len(axis) ** 2, 5).double(), torch.zeros(len(axis) ** 2, 5).double()
    x[:, [0, 3]], visible[:, [0, 3]] = torch.cartesian_prod(axis, axis), 1.0
    weight = network.log_likelihood(x, visible).exp()
    weight = weight / weight.sum()
    for found, expected in ((total, x[:, 0] + x[:, 3]), (difference, x[:, 0] - x[:, 3])):
        for power in (1, 2):  # the second moment holds the covariance
            mean = (weight * expected**power).sum()
            error = (found**power).std() / math.sqrt(n)
            assert (found**power).mean().item() == pytest.approx(mean.item(), abs=4.5 * error.item() + 1e-4)


def test_samples_depend_on_the_generator_alone() -> None:
    network = network_of()
    one, same, other = (network.sample(5, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("config", [TINY, replace(TINY, depth=1, replicas=3)])
def test_em_never_lowers_the_likelihood(config: SPNConfig) -> None:
    network = network_of(config)
    x, visible = 2 * rand(60, 10), rand(60, 5, seed=2).mul(3).round().div(3)
    x = torch.where(visible.repeat(1, 2) == 0, math.nan, x)
    batches = [(x[:40], visible[:40]), (x[40:], visible[40:])]
    history = [em_step(network, batches) for _ in range(15)]
    assert history[0] == pytest.approx(network_of(config).log_likelihood(x, visible).mean().item())
    assert (np.diff(history) > -1e-9).all()
    assert history[-1] > history[0] + 1


def test_em_gives_each_weight_its_share_of_the_uses() -> None:
    network, x = network_of(), 2 * rand(60, 10)
    expected = expectation(network, x)
    maximise(network, expected)
    *inner, root = zip(network.log_weights(), expected.weights, strict=True)
    for log_weights, uses in inner:
        torch.testing.assert_close(log_weights.exp(), uses / uses.sum(-1, keepdim=True))
    torch.testing.assert_close(root[0].exp(), root[1] / 60)  # each image uses one product of the root


def test_em_of_one_gaussian_is_its_moments() -> None:
    config = SPNConfig(pixels=2, replicas=1, depth=1, leaves=1, sums=1, min_variance=0.01, max_variance=9.0)
    network, x = network_of(config), 3 * rand(50, 2)
    em_step(network, [(x, None)])
    torch.testing.assert_close(network.leaves.mean[0, 0], x.mean(0))
    torch.testing.assert_close(network.leaves.variance[0, 0], x.var(0, correction=0))


def test_seeds_stacked_are_the_seeds_one_by_one() -> None:
    networks = [network_of(replace(TINY, seed=seed), seed=seed) for seed in range(3)]
    x, visible = rand(3, 4, 10), rand(3, 4, 5, seed=2)
    parameters, buffers = torch.func.stack_module_state(networks)  # type: ignore[arg-type]
    for network in networks:
        network.forward = network.log_likelihood  # type: ignore[method-assign]

    def one(parameters: Any, buffers: Any, x: Tensor, visible: Tensor | None) -> Tensor:
        return torch.func.functional_call(networks[0], (parameters, buffers), (x, visible))

    for masks in (visible, None):
        stacked = torch.func.vmap(one, in_dims=(0, 0, 0, None if masks is None else 0))(
            parameters, buffers, x, masks
        )
        gradients = torch.autograd.grad(stacked.sum(), list(parameters.values()))
        for i, network in enumerate(networks):
            single = network.log_likelihood(x[i], None if masks is None else masks[i])
            torch.testing.assert_close(stacked[i], single)
            own = torch.autograd.grad(
                single.sum(), [dict(network.named_parameters())[name] for name in parameters]
            )
            for all_of_it, of_this in zip(gradients, own, strict=True):
                torch.testing.assert_close(all_of_it[i], of_this)


def test_structured_networks_are_densities_too() -> None:
    network = network_of(replace(TINY, pixels=6, canvas=(2, 3), structure="structured"))
    certain = network.log_likelihood(rand(1, 12), torch.zeros(1, 6, dtype=torch.float64))
    assert certain.item() == pytest.approx(0, abs=1e-12)
    joints, _ = tree_terms(network, rand(1, 12)[0], torch.ones(6))
    torch.testing.assert_close(network.log_likelihood(rand(1, 12))[0], joints.logsumexp(0))
