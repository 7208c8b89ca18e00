from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from multiobj_data.errors import UsageError
from reference_models.air import AIR
from reference_models.base import noise_of
from reference_models.checkpoints import build_model
from reference_models.parts.nets import output_layer
from reference_models.parts.objects.counts import at_least
from reference_models.parts.objects.eye import Eye

SHAPE = (12, 10, 1)


def air(shape: tuple[int, int, int] = SHAPE, **config: Any) -> AIR:
    model = build_model("air", config, shape, seed=0).double().eval()  # the prior as it is in the end
    assert isinstance(model, AIR)
    return model


def some_images(n: int, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    return torch.as_tensor(np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8))


def noise(model: AIR, n: int, seed: int = 0) -> Tensor:
    shape = (n, model.config.max_objects, 3 + model.config.what_size)
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_samples_are_of_the_model_that_will_have_been_learnt(small: dict[str, Any]) -> None:
    model = air(**{**small, "anneal": "exponential", "anneal_start": 0.9, "anneal_steps": 100})
    model.training_step = 1
    one, other = (model.train(mode).sample(20, torch.Generator().manual_seed(0)) for mode in (True, False))
    assert torch.equal(one, other)
    assert model.train().sample(1, torch.Generator()).shape == (1, *SHAPE)
    assert model.training


def test_enumerated_elbo_is_the_average_over_sampled_counts(small: dict[str, Any]) -> None:
    model = air(**{**small, "max_objects": 3, "presence_bias": 0.5})
    x, eps = model.as_float(some_images(2)), noise(model, 2)
    with torch.no_grad():
        q = model.infer(x, eps)
        z_where, z_what = model.split(q.z)
        objects = model.render(z_where, z_what)
        kl = torch.zeros(2, 3, dtype=torch.float64)
        for posterior, z in ((q.where, z_where), (q.what, z_what)):
            standard = Normal(torch.zeros_like(z), torch.ones_like(z))
            kl += kl_divergence(posterior.base_dist, standard).sum(-1)
        flips = torch.sigmoid(torch.logit(at_least(q.count)))  # P(N >= t)
        go = flips / torch.cat([torch.ones(2, 1), flips[:, :-1]], dim=1)  # P(N >= t | N >= t - 1)
        draws = torch.rand(20000, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) < go
        n = draws.long().cumprod(-1).sum(-1)  # [20000, 2]
        outcomes = torch.empty(2, 4, dtype=torch.float64)
        for i, k in itertools.product(range(2), range(4)):
            pixels = Normal(objects[i, :k].sum(0), model.config.likelihood_sd).log_prob(x[i]).sum()
            count = model.prior_count(x).log_prob(torch.tensor(k)) - q.count.logits[i, k]
            outcomes[i, k] = pixels + count - kl[i, :k].sum()
        sampled = outcomes.gather(1, n.T)  # [2, 20000]
        elbo = -model.negative_elbo(x, eps).per_image
    standard_error = sampled.std(1) / math.sqrt(20000)
    assert ((sampled.mean(1) - elbo).abs() < 4 * standard_error).all()


def test_likelihood_of_each_count_is_that_of_the_summed_canvas(small: dict[str, Any]) -> None:
    model = air(**small)
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(3, 1, 12, 10, dtype=torch.float64, generator=rng)
    objects = torch.rand(3, 2, 1, 12, 10, dtype=torch.float64, generator=rng)
    canvases = [torch.zeros_like(x), objects[:, 0], objects[:, 0] + objects[:, 1]]
    expected = torch.stack([Normal(c, 0.3).log_prob(x).sum((1, 2, 3)) for c in canvases], dim=1)
    torch.testing.assert_close(model.log_likelihoods(x.flatten(1), objects.flatten(2)), expected)


def log_evidence(model: AIR, x: Tensor, points: int = 12) -> Tensor:
    """log p(x) of an AIR with at most one object and a code of one number, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(points)
    grid = torch.cartesian_prod(*[torch.as_tensor(nodes)] * 4)[:, None]  # [points^4, 1, 4]
    log_weights = torch.cartesian_prod(*[torch.as_tensor(np.log(weights / weights.sum()))] * 4).sum(-1)
    objects = model.render(grid[..., :3], grid[..., 3:])  # [points^4, 1, 1, H, W]
    evidence = []
    for image in x:
        given = model.log_likelihoods(
            image.flatten().expand(len(grid), -1), objects.flatten(2)
        )  # [points^4, 2]
        with_n = (given + log_weights[:, None]).logsumexp(0)
        evidence.append((with_n + model.prior_count(x).logits).logsumexp(-1))
    return torch.stack(evidence)


def test_elbo_is_below_the_exact_evidence() -> None:
    model = air(
        (6, 5, 1), max_objects=1, what_size=1, window_size=4, hidden_size=8, lstm_size=8, likelihood_sd=1.0
    )
    x = model.as_float(some_images(3, (6, 5, 1)))
    with torch.no_grad():
        exact = log_evidence(model, x)
        torch.testing.assert_close(exact, log_evidence(model, x, points=10), atol=1e-3, rtol=0)
        elbo = -torch.stack([model.negative_elbo(x, noise(model, 3, seed)).per_image for seed in range(400)])
    assert (elbo.mean(0) + 4 * elbo.std(0) / 20 <= exact).all()


def test_elbo_is_the_evidence_when_the_posterior_is_right() -> None:
    model = air(max_objects=1, what_size=3, decoder_bias=-60.0)  # paints nothing: the posterior is the prior
    raw_sd = math.log(math.e - 1)  # softplus gives 1
    x = model.as_float(some_images(2))
    with torch.no_grad():
        for net in (model.find, model.encode):
            output_layer(net).weight.zero_()
            output_layer(net).bias.zero_()
        output_layer(model.find).bias[4:] = raw_sd
        output_layer(model.encode).bias[3:] = raw_sd
        output_layer(model.find).bias[0] = torch.logit(model.prior_count(x).probs[1])
        elbo = -model.negative_elbo(x, noise(model, 2)).per_image
    torch.testing.assert_close(elbo, Normal(0.0, 0.3).log_prob(x).sum((1, 2, 3)))


def test_absent_objects_cost_nothing(small: dict[str, Any]) -> None:
    model = air(**small, presence_bias=-60.0)
    terms = model.negative_elbo(model.as_float(some_images(3)), noise(model, 3)).terms
    for name in ("kl_where", "kl_what"):
        assert terms[name].abs().max() < 1e-12


def test_z_where_and_boxes_round_trip() -> None:
    model = air((30, 50, 3))
    z_where = torch.randn(4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    windows = model.windows(z_where)
    torch.testing.assert_close(model.z_where_of(type(windows).from_boxes(windows.boxes())), z_where)


def test_window_at_the_prior_mean_is_a_centred_third_of_the_canvas() -> None:
    boxes = air((60, 60, 1), object_scale=1 / 3).windows(torch.zeros(3, dtype=torch.float64)).boxes()
    torch.testing.assert_close(boxes, torch.tensor([20.0, 20.0, 40.0, 40.0], dtype=torch.float64))


def test_image_is_read_as_by_a_standard_lstm() -> None:
    model = air(filters=(), difference_pool=0)
    cell = torch.nn.LSTMCell(120 + 53, 256).double()
    order = torch.cat(
        [torch.arange(512), torch.arange(768, 1024), torch.arange(512, 768)]
    )  # i f g o from i f o g
    assert model.lstm.read_context is not None
    image_w, state_w = model.lstm.read_context.weight[order], model.lstm.read_step.weight[order]
    with torch.no_grad():
        cell.weight_ih.copy_(torch.cat([image_w, state_w[:, 256:]], dim=1))
        cell.weight_hh.copy_(state_w[:, :256])
        cell.bias_ih.copy_(model.lstm.read_step.bias[order])
        cell.bias_hh.zero_()
        x, eps = model.as_float(some_images(2)), noise(model, 2)
        hidden = cell(torch.cat([x.flatten(1), torch.zeros(2, 53)], dim=1), None)[0]
        logit = model.find(hidden)[:, 0]
        first_go = torch.logit(at_least(model.infer(x, eps).count)[:, 0])
    torch.testing.assert_close(first_go, logit)


def test_each_step_reads_what_the_objects_before_leave_unexplained(small: dict[str, Any]) -> None:
    model = air(**small, difference_pool=4)
    x, eps = model.as_float(some_images(2)), noise(model, 2)
    seen: list[Tensor] = []
    model.lstm.read_step.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    with torch.no_grad():
        q = model.infer(x, eps)
        drawn = model.render(*model.split(q.z))  # [2, K, 1, 12, 10]
    assert q.drawn is not None
    torch.testing.assert_close(q.drawn, drawn)
    left = torch.stack([x, x - drawn[:, 0]])[:, :, 0]  # [steps, 2, 12, 10]
    for step in range(2):
        blocks = [left[step, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4] for i in range(3) for j in range(3)]
        means = torch.stack(
            [block.mean((1, 2)) for block in blocks], dim=-1
        )  # the last column: 2 pixels wide
        torch.testing.assert_close(seen[step][:, -9:], means)


def test_convolutions_keep_the_size_of_what_they_see() -> None:
    eye = Eye((50, 50, 3), [8, 16, 32])
    features = eye(torch.randn(16, 3, 50, 50, generator=torch.Generator().manual_seed(0)))
    assert features.shape == (16, eye.features) == (16, 32 * 7 * 7)
    assert 0.5 < features.square().mean() / 0.5 < 2  # a ReLU halves the square; the weights make up for it
    assert Eye((5, 4, 3), []).features == 60


def test_samples_hold_as_many_objects_as_asked() -> None:
    model = air((40, 40, 3), decoder_bias=4.0)
    count = torch.tensor([0, 1, 3])
    images = model.sample(3, torch.Generator().manual_seed(0), count)
    assert images.shape == (3, 40, 40, 3)
    assert (images[0] == 0).all()
    assert (images[1:].amax((1, 2, 3)) > 0.5).all()
    drawn = air((8, 8, 1), relaxed_ratio=0.9).sample(40, torch.Generator().manual_seed(0))
    assert (drawn.amax((1, 2, 3)) == 0).any()
    assert (drawn.amax((1, 2, 3)) > 0).any()


def test_prediction_shows_only_the_objects_it_counts(small: dict[str, Any]) -> None:
    images = some_images(3)
    none = air(**small, presence_bias=-60.0).predict(images)
    assert (none.count == 0).all()
    assert (none.reconstruction == 0).all()
    assert (none.masks[:, 0] == 1).all()
    both = air(**small, presence_bias=60.0, decoder_bias=4.0).predict(images)
    assert (both.count == 2).all()
    assert (both.masks[:, 1:].amax((2, 3)) > both.masks[:, :1].amin((2, 3))).all()


def test_codes_are_the_posterior_means_and_the_background_has_none(small: dict[str, Any]) -> None:
    images = some_images(3)
    model = air(**small)
    slots = model.predict(images).slots
    with torch.no_grad():
        posterior = model.infer(model.as_float(images), torch.zeros_like(noise(model, 3)))
    means = torch.cat([posterior.where.mean, posterior.what.mean], dim=-1)
    assert slots[:, 0].isnan().all()
    torch.testing.assert_close(slots[:, 1:], means)


def test_noise_is_each_image_own() -> None:
    images = some_images(4)
    like = torch.zeros((), dtype=torch.float64)
    whole = noise_of(images, (50, 40), like)
    torch.testing.assert_close(noise_of(images[2:3], (50, 40), like), whole[2:3])
    assert not torch.equal(whole[0], whole[1])
    assert (whole.mean((1, 2)).abs() < 4 / math.sqrt(2000)).all()
    torch.testing.assert_close(whole.std((1, 2)), torch.ones(4, dtype=torch.float64), atol=0.1, rtol=0)


def test_unknown_setting_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match=r"max_object.*Did you mean 'max_objects'"):
        AIR.from_config({"max_object": 3}, SHAPE)


@pytest.mark.parametrize("setting", [{"likelihood_sd": 0}, {"count_ratio": -1}, {"decoder_bias": math.nan}])
def test_impossible_settings_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(setting))):
        AIR.from_config(setting, SHAPE)


def test_settings_may_be_texts() -> None:
    assert AIR.from_config({"learning_rate": "1e-3", "max_objects": "4"}, SHAPE).config.max_objects == 4


def test_images_of_another_size_are_refused_in_one_sentence() -> None:
    with pytest.raises(UsageError, match=r"expected images \[B, 12, 10, 1\], got \[2, 9, 10, 1\]"):
        air().predict(np.zeros((2, 9, 10, 1), np.uint8))
    with pytest.raises(UsageError, match="expected uint8"):
        air().predict(np.zeros((2, *SHAPE), np.float32))
