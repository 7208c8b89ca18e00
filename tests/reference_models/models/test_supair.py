from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical
from torch.func import functional_call, stack_module_state, vmap

from reference_models.base import SceneModel
from reference_models.checkpoints import build_model
from reference_models.parts.objects.poses import rectangles_of
from reference_models.presets import preset_settings
from reference_models.supair import SuPAIR
from tests.reference_models.models.small_supair import SHAPE, SMALL, VARIANTS, decide, images, rng, supair


def poses(*boxes: tuple[float, float, float, float]) -> Tensor:
    """Return z_where ``[1, K, 4]`` of ``(width, height, left, top)``."""
    return torch.tensor([boxes], dtype=torch.float64)


def test_parameters_are_as_many_as_in_table_1() -> None:
    model = SuPAIR.from_config(preset_settings("supair", "faithful-multi-mnist"), (50, 50, 1))
    guide = sum(p.numel() for part in (model.guide.lstm, model.guide.find) for p in part.parameters())
    assert guide == 2_836_477
    assert sum(p.numel() for p in model.objects.parameters()) == 286_560
    assert sum(p.numel() for p in model.background.parameters()) == 90_108
    assert sum(p.numel() for p in model.parameters()) == 3_213_145


@pytest.mark.parametrize("config", VARIANTS, ids=str)
@pytest.mark.parametrize("shape", [SHAPE, (9, 13, 3)], ids=str)
def test_every_parameter_gets_a_gradient(config: dict[str, Any], shape: tuple[int, int, int]) -> None:
    model = supair(shape, **config)
    model.loss(images(6, shape), rng()).total.backward()
    silent = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


@pytest.mark.parametrize("config", [{}, {"order": "inferred"}, {"pose_of": "present"}], ids=str)
def test_elbo_of_a_guide_is_the_average_over_sampled_counts(config: dict[str, Any]) -> None:
    model = supair(count="guided", **config)
    x, noise = model.as_float(images(2)), model.draw(2, rng())
    with torch.no_grad():
        q = model.infer(x, noise)
        go = torch.sigmoid(q.decisions)
        draws = torch.rand(20000, 2, 3, dtype=torch.float64, generator=rng(1)) < go
        n = draws.long().cumprod(-1).sum(-1)  # [20000, 2]
        outcomes = torch.stack([outcome(model, x, q, k) for k in range(4)], dim=-1)  # [2, 4]
        sampled = outcomes.gather(1, n.T)
        elbo = -model.objective(x, noise).per_image
    torch.testing.assert_close((q.count.probs * outcomes).sum(-1), elbo)
    standard_error = sampled.std(1) / math.sqrt(20000)
    assert (standard_error > 0).all()
    assert ((sampled.mean(1) - elbo).abs() < 4 * standard_error).all()


@pytest.mark.parametrize("config", [{}, {"order": "inferred"}, {"pose_of": "present"}], ids=str)
def test_which_objects_are_there_is_inferred_by_bayes_rule(config: dict[str, Any]) -> None:
    model, guided = supair(**config), supair(count="guided", **config)
    x, noise = model.as_float(images()), model.draw(3, rng())
    with torch.no_grad():
        q = model.infer(x, noise)
        log_p = []  # log p(x, set, z) - log q(z), with the set's objects alone, in their order
        for n in range(4):
            for those in itertools.combinations(range(3), n):
                order = [*those, *(i for i in range(3) if i not in those)]
                moved = replace(q, z=q.z[:, order], log_sd=q.log_sd[:, order])
                value = outcome(guided, x, moved, n) + q.count.logits[:, n]
                log_p.append(value - math.log(math.comb(3, n)))
        joint = torch.stack(log_p, dim=-1)
        torch.testing.assert_close(model.present(q, model.score(x, q.z)), joint.log_softmax(-1))
        elbo = -model.objective(x, noise).per_image
    torch.testing.assert_close(elbo, joint.logsumexp(-1))


def test_inferred_objects_do_not_hear_the_guide() -> None:
    for count, hears in (("inferred", False), ("guided", True)):
        none, every = (decide(supair(count=count), logit) for logit in (-60.0, 60.0))
        x, noise = none.as_float(images()), none.draw(3, rng())
        found = [each.present(q := each.infer(x, noise), each.score(x, q.z)) for each in (none, every)]
        assert torch.equal(*found) != hears


def outcome(model: SuPAIR, x: Tensor, q: Any, n: int) -> Tensor:
    """log p(x, n, z) - log q(n, z) with n objects, the orders summed one by one: ``[B]``."""
    scores = model.score(x, q.z)
    value = scores.objects + scores.occlusion
    every = model.config.order == "inferred"
    orders = list(itertools.permutations(range(n))) if every else [tuple(range(n))]
    totals = []
    for order in orders:
        places = [
            next(
                place
                for place, query in enumerate(model.orders.queries)
                if query.item == i and query.front == frozenset(order[:depth])
            )
            for depth, i in enumerate(order)
        ]
        totals.append(value[:, places].sum(-1))
    given = torch.stack(totals).logsumexp(0) - math.log(len(orders)) + scores.background[:, n]
    poses_of = n if model.config.pose_of == "present" else 3
    of_pose = (q.entropy() - model.poses.log_volume)[:, :poses_of].sum(-1)
    return given + model.prior_count().logits[n] - q.count.logits[:, n] + of_pose


def test_elbo_is_below_the_evidence() -> None:
    model = supair((6, 5, 1), max_objects=1, patch_size=3, side_sd=0.01, position_sd=0.01)
    x = model.as_float(images(2, (6, 5, 1)))
    with torch.no_grad():
        elbo = -torch.stack([model.objective(x, model.draw(2, rng(seed))).per_image for seed in range(100)])
        evidence, coarser = log_evidence(model, x, 5), log_evidence(model, x, 4)
    torch.testing.assert_close(evidence, coarser, atol=0.2, rtol=0)
    gap = evidence - elbo.mean(0)
    assert (gap > 0.2 + 4 * elbo.std(0) / 10).all()
    assert (gap < 12).all()


def log_evidence(model: SuPAIR, x: Tensor, points: int) -> Tensor:
    """log of sum over n of the integral over z of p(x, n, z), within 5 sd of the posterior's mean.

    Elsewhere p is positive too: what is integrated is a lower bound of the evidence, and bounds the ELBO of a
    posterior that is hardly ever elsewhere.
    """
    q = model.infer(x, torch.zeros(len(x), 1, 4, dtype=torch.float64))
    nodes, weights = np.polynomial.legendre.leggauss(points)
    grid = torch.cartesian_prod(*[torch.as_tensor(nodes) * 5] * 4)  # [points^4, 4]
    log_weights = torch.cartesian_prod(*[torch.as_tensor(np.log(weights * 5))] * 4).sum(-1)
    evidence = []
    prior = model.prior_count().logits
    for image, mean, log_sd in zip(x, q.mean, q.log_sd, strict=True):
        z = (mean + log_sd.exp() * grid)[:, None]  # [points^4, 1, 4]
        scores = model.score(image.expand(len(z), -1, -1, -1), z)
        with_one = scores.objects[:, 0] + scores.occlusion[:, 0] + scores.background[:, 1]
        volume = log_sd.sum() - model.poses.log_volume
        one = (with_one + log_weights).logsumexp(0) + volume
        none = scores.background[0, 0] + torch.log(log_weights.exp().sum()) + volume
        evidence.append(torch.logaddexp(none + prior[0], one + prior[1]))
    return torch.stack(evidence)


def test_background_does_not_see_what_objects_hide() -> None:
    model, z = supair(count="guided"), poses((4, 5, 2, 3), (3, 3, 6, 8), (2, 2, 0, 0))
    x = model.as_float(images(1))
    other = x.clone()
    other[..., 3:8, 2:6] = 1 - other[..., 3:8, 2:6]
    one, two = (model.score(each, z).background for each in (x, other))
    assert (one[:, 0] != two[:, 0]).all()
    assert torch.equal(one[:, 1:], two[:, 1:])


def test_objects_do_not_see_what_others_hide_or_what_is_elsewhere() -> None:
    model, z = supair(count="guided"), poses((4, 4, 2, 3), (6, 6, 2, 3), (3, 3, 7, 9))
    x = model.as_float(images(1))
    hidden, elsewhere = x.clone(), x.clone()
    hidden[..., 3:6, 2:5] = 0.5  # under the first object, at whose edge the second begins to show
    elsewhere[..., :2, :] = 0.5
    before, under_first, outside = (model.score(each, z) for each in (x, hidden, elsewhere))
    assert (before.objects[:, 0] != under_first.objects[:, 0]).all()
    assert torch.equal(before.objects[:, 1:], under_first.objects[:, 1:])
    assert torch.equal(before.objects, outside.objects)
    assert torch.equal(before.occlusion, under_first.occlusion)


def test_hidden_area_costs_what_gamma_says() -> None:
    model = supair(count="guided")
    z = poses((4, 4, 3, 3), (4, 4, 3, 3), (4, 4, -20, 0))  # in front, right behind it, off the canvas
    occlusion = model.score(model.as_float(images(1)), z).occlusion[0]
    hidden = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(occlusion, math.log(120) - 120 * hidden)


def test_order_of_objects_apart_does_not_matter() -> None:
    model = supair(order="inferred", max_objects=2)
    scores = model.score(model.as_float(images(1)), poses((3, 4, 1, 1), (4, 3, 5.5, 7.2)))
    alone, behind = scores.objects[0, :2], scores.objects[0, 2:]
    assert [query.item for query in model.orders.queries] == [0, 1, 0, 1]
    assert torch.equal(alone, behind)
    assert (model.orders.surprise(model.orders.posterior(scores.objects)) == 0).all()


def test_inferred_order_is_the_mean_over_permuted_objects() -> None:
    inferred, fixed = supair(order="inferred", count="guided"), supair(count="guided")
    fixed.load_state_dict(inferred.state_dict())
    x, z = inferred.as_float(images(1)), poses((5, 6, 1, 2), (5, 4, 3, 3), (4, 6, 4, 5))
    of_all = Categorical(torch.tensor([[0.0, 0, 0, 1]])).probs.double()
    with torch.no_grad():
        scores = inferred.score(x, z)
        values = scores.objects + scores.occlusion
        order = inferred.orders.posterior(values)
        found = (inferred.orders.shares(of_all, order) * values).sum() - inferred.orders.surprise(order)[0, 3]
        totals = []
        for permutation in itertools.permutations(range(3)):
            one = fixed.score(x, z[:, list(permutation)])
            totals.append((one.objects + one.occlusion).sum())
            torch.testing.assert_close(one.background[:, 3], scores.background[:, 3])
    expected = torch.stack(totals).logsumexp(0) - math.log(6)
    assert torch.stack(totals).std() > 1  # they overlap
    torch.testing.assert_close(found, expected)


def test_score_counts_patches_in_proportion_to_their_area() -> None:
    model = supair(max_objects=1, background="black")
    x = torch.full((1, 1, 12, 10), 0.3, dtype=torch.float64)  # every patch looks alike
    small, large = (model.score(x, poses((w, h, 2, 2))).objects for w, h in ((2, 3), (4, 6)))
    torch.testing.assert_close(4 * small, large)
    alike = torch.full((1, 16), 0.3, dtype=torch.float64)
    torch.testing.assert_close(small[:, 0], model.looks(0).log_likelihood(alike) * 6 / 16)


def test_objects_of_their_own_have_networks_of_their_own() -> None:
    model = supair(shared_objects=False, count="guided")
    x, z = model.as_float(images(1)), poses((4, 4, 1, 1), (4, 4, 1, 1), (4, 4, 1, 1))
    z[:, 1:, 2:] = torch.tensor([[5.0, 1], [1, 7]])  # apart
    scores = model.score(x, z).objects
    for i in range(3):
        alone = supair(max_objects=1)
        alone.objects[0].load_state_dict(model.objects[i].state_dict())
        torch.testing.assert_close(scores[:, i : i + 1], alone.score(x, z[:, i : i + 1]).objects)
    assert scores.unique().numel() == 3


def test_black_background_is_independent_normal_pixels() -> None:
    model = supair((12, 10, 3), background="black", background_sd=0.2, count="guided")
    x, z = model.as_float(images(2, (12, 10, 3))), poses((4, 5, 2, 3), (3, 3, 6, 8), (2, 2, 0, 0))
    found = model.score(x, z.expand(2, -1, -1)).background
    log_p = torch.distributions.Normal(0, 0.2).log_prob(x).sum(1)  # [2, H, W]
    torch.testing.assert_close(found[:, 0], log_p.sum((1, 2)))
    seen = torch.ones(12, 10, dtype=torch.float64)
    seen[3:8, 2:6] = 0
    torch.testing.assert_close(found[:, 1], (seen * log_p).sum((1, 2)))


def test_poses_begin_within_their_range_and_keep_to_it() -> None:
    model = supair((40, 60, 1))
    unit = torch.rand(500, 3, 4, dtype=torch.float64, generator=rng())
    wide, high, left, top = model.poses.spread(unit).unbind(-1)
    assert wide.min() >= 0.3 * 40
    assert wide.max() <= 0.6 * 40
    assert (high / wide).min() >= 0.75
    assert (high / wide).max() <= 1.25
    assert left.max() <= 0.9 * 60
    assert 0.85 * 40 < top.max() <= 0.9 * 40
    boxes = rectangles_of(torch.stack([wide, high, left, top], -1)).boxes()
    torch.testing.assert_close(boxes, torch.stack([left, top, left + wide, top + high], -1))


def test_absent_objects_have_no_pose_where_only_those_present_count() -> None:
    model = decide(supair(count="guided", pose_of="present"), -60.0)
    assert model.loss(images(), rng()).terms["pose"].abs().max() < 1e-12
    everywhere = decide(supair(count="guided"), -60.0)
    x, noise = everywhere.as_float(images()), everywhere.draw(3, rng())
    q = everywhere.infer(x, noise)
    log_q = torch.distributions.Normal(q.mean, q.log_sd.exp()).entropy().sum((1, 2))
    terms = everywhere.objective(x, noise).terms
    torch.testing.assert_close(terms["pose"], 3 * everywhere.poses.log_volume - log_q)


def test_count_costs_its_divergence_from_the_prior() -> None:
    model = supair(count="guided", count_ratio=0.25)
    q = model.infer(model.as_float(images()), model.draw(3, rng())).count
    p = torch.tensor([0.25**n for n in range(4)], dtype=torch.float64)
    expected = torch.distributions.kl_divergence(Categorical(q.probs), Categorical(p / p.sum()))
    torch.testing.assert_close(model.loss(images(), rng()).terms["count"], expected)


@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize("sees", ["image", "remaining"])
def test_a_step_knows_the_one_before_by_its_pose_or_by_what_it_covers(feedback: bool, sees: str) -> None:
    model = supair(feedback=feedback, sees=sees)
    torch.nn.init.normal_(
        model.guide.lstm.read_step.weight
    )  # that of `remaining` begins blind to the last pose
    x, noise = model.as_float(images(1)), model.draw(1, rng())
    other = noise.clone()
    other[:, 0] += 1
    one, two = model.infer(x, noise), model.infer(x, other)
    assert torch.equal(one.mean[:, 0], two.mean[:, 0])
    assert torch.equal(one.mean[:, 1:], two.mean[:, 1:]) == (not feedback and sees == "image")


def test_guide_finds_the_second_as_the_first_where_it_begins() -> None:
    model = supair((40, 40, 1), max_objects=2, side_range="0.2,0.4")
    x = model.as_float(images(1, (40, 40, 1)))
    noise = torch.zeros(1, 2, 4, dtype=torch.float64)
    both = model.infer(x, noise)
    left = x * (1 - rectangles_of(both.z[:, :1]).grown(0.25).coverage(40, 40).pixels)
    with torch.no_grad():
        model.guide.lstm.read_step.bias[
            model.config.lstm_size : 2 * model.config.lstm_size
        ] = -60  # nothing is kept
        both, alone = model.infer(x, noise), model.infer(left, noise)
    torch.testing.assert_close(both.z[:, 1], alone.z[:, 0])
    assert not torch.equal(both.z[:, 0], both.z[:, 1])


@pytest.mark.parametrize(
    ("step", "training", "margin"),
    [(0, True, 0.25), (500, True, 0.125), (0, False, 0), (2000, True, 0)],
)
def test_guide_sees_what_is_left_of_the_image(step: int, training: bool, margin: float) -> None:
    model, seen = supair().train(training), []
    model.training_step = step
    model.guide.look.register_forward_pre_hook(lambda eye, images: seen.append(images[0]))
    x = model.as_float(images(1))
    z = model.infer(x, model.draw(1, rng())).z
    alone = rectangles_of(z).grown(margin).coverage(*SHAPE[:2]).pixels[0, :, None]  # [K, 1, H, W]
    covered = 1 - torch.cumprod(1 - alone, dim=0)
    assert covered.any()
    torch.testing.assert_close(torch.cat(seen), torch.cat([x, *(x * (1 - covered[:2]))[:, None]]))


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_seeds_can_be_trained_together(config: dict[str, Any]) -> None:
    models = [build_model("supair", {**SMALL, **config}, SHAPE, seed=seed).double() for seed in (1, 2)]
    parameters, buffers = stack_module_state(list(models))
    x = models[0].as_float(images())
    noise = torch.stack([model.draw(3, rng(seed)) for seed, model in enumerate(models)])
    alone = torch.stack([model.objective(x, eps).per_image for model, eps in zip(models, noise, strict=True)])

    class Objective(torch.nn.Module):
        def __init__(self, model: SceneModel) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor, noise: Tensor) -> Tensor:
            return self.model.objective(x, noise).per_image

    first = Objective(models[0])
    prefixed: list[Any] = [
        {f"model.{key}": value for key, value in each.items()} for each in (parameters, buffers)
    ]

    def objective(parameters: Any, buffers: Any, noise: Tensor) -> Any:
        return functional_call(first, (parameters, buffers), (x, noise))

    together = vmap(objective)(prefixed[0], prefixed[1], noise)
    torch.testing.assert_close(together, alone)
