from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from multiobj_data.errors import UsageError
from reference_models.air import AIR, Noise
from reference_models.air_settings import ESTIMATORS, AIRConfig
from reference_models.checkpoints import build_model
from reference_models.parts.objects.answers import share_pixels, tight_boxes
from reference_models.parts.objects.autoregressive_prior import AutoregressivePrior
from reference_models.parts.objects.counts import stick_breaking
from reference_models.parts.objects.likelihoods import BernoulliLikelihood, GaussianLikelihood
from reference_models.parts.objects.placing import LogNormalScale, Placing, Squashed
from reference_models.parts.recurrent import SharedInputLSTM

SHAPE = (12, 10, 1)
SMALL = {"lstm_size": 16, "hidden_size": 16, "what_size": 4, "window_size": 6, "code_sizes": "16"}
FAMILY = ("air", "air-pprior", "air-asr")


def model(name: str = "air", shape: tuple[int, int, int] = SHAPE, **config: Any) -> AIR:
    built = build_model(name, {**SMALL, **config}, shape, seed=0).double()
    assert isinstance(built, AIR)
    return built


def images(n: int = 3, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    return torch.as_tensor(np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("name", FAMILY)
def test_every_parameter_gets_a_gradient(name: str, estimator: str) -> None:
    air = model(name, estimator=estimator, allowed_counts="1,2", max_objects=3, particles=2)
    air.loss(images(), rng()).total.backward()
    # Of the last object no successor is decided, so nothing reads what the prior remembers of it.
    silent = [key for key, p in air.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


@pytest.mark.parametrize("estimator", ["score-function", "baseline", "mvd"])
def test_estimators_agree_with_enumeration_on_the_model_itself(estimator: str) -> None:
    draws = 3000
    air = model(estimator=estimator, max_objects=2, presence_bias=0.3)
    exact = model(max_objects=2, presence_bias=0.3)
    exact.load_state_dict(air.state_dict(), strict=False)
    x = air.as_float(images(1))
    z = torch.randn(1, 2, air.latents, dtype=torch.float64, generator=rng())
    head = [p for key, p in exact.named_parameters() if key.startswith("find.2.")]
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(exact.negative_elbo(x, z).total, head)])
    head = [p for key, p in air.named_parameters() if key.startswith("find.2.")]
    uniform = torch.rand(draws, 2, dtype=torch.float64, generator=rng(1))
    found = []
    for part in uniform.split(1):  # one draw at a time: the gradient of each is wanted
        loss = air.objective(x, Noise(z, part))
        elbo = sum(term.sum() for key, term in loss.terms.items() if key != "baseline")
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(elbo, head)]))
        if len(found) == 600:
            break
    draws_of = torch.stack(found)
    error = draws_of.std(0) / len(found) ** 0.5
    assert ((draws_of.mean(0) - expected).abs() < 5 * error + 1e-6).all()


@pytest.mark.parametrize("name", FAMILY)
def test_prediction_is_enumerated_whatever_the_model_is_trained_with(name: str) -> None:
    plain, sampled = model(name), model(name, estimator="nvil")
    sampled.load_state_dict(plain.state_dict(), strict=False)
    one, other = (air.predict(images()) for air in (plain, sampled))
    torch.testing.assert_close(one.log_likelihood, other.log_likelihood)
    torch.testing.assert_close(one.count, other.count)


def test_particles_lie_image_by_image() -> None:
    air = model(estimator="vimco", particles=3)
    x = air.as_float(images(2))
    noise = torch.randn(6, 3, air.latents, dtype=torch.float64, generator=rng())
    together, alone = air.infer(x, noise), air.infer(x[1:], noise[3:])
    torch.testing.assert_close(together.z[3:], alone.z)


def test_autoregressive_prior_begins_as_the_standard_one() -> None:
    prior = AutoregressivePrior(latents=7, size=8, hidden=8, learn_scale=True).double()
    z = torch.randn(5, 4, 7, dtype=torch.float64, generator=rng())
    decisions, where = prior(z)
    assert decisions.shape == (5, 4)
    assert (where.base_dist.loc.abs() < 0.2).all()
    assert ((where.base_dist.scale - 1).abs() < 0.2).all()


def test_autoregressive_prior_knows_only_the_past() -> None:
    prior = AutoregressivePrior(latents=7, size=8, hidden=8, learn_scale=False).double()
    z = torch.randn(2, 4, 7, dtype=torch.float64, generator=rng()).requires_grad_()
    decisions, where = prior(z)
    for t in range(4):
        (g,) = torch.autograd.grad(
            decisions[:, t].sum() + where.mean[:, t].sum(), z, retain_graph=True, allow_unused=True
        )
        reach = torch.zeros(4, dtype=torch.bool) if g is None else g.abs().sum((0, 2)) > 0
        assert reach.tolist() == [s < t for s in range(4)]
    assert (where.base_dist.scale[..., 0] == 1).all()
    assert (where.base_dist.loc[..., 0] == 0).all()


def test_learned_priors_enter_the_elbo() -> None:
    air = model("air-pprior", max_objects=2)
    x = air.as_float(images(2))
    noise = torch.randn(2, 2, air.latents, dtype=torch.float64, generator=rng())
    q = air.infer(x, noise)
    decisions, where = air.priors(q.z)
    assert where is not None
    terms = air.negative_elbo(x, noise).terms
    torch.testing.assert_close(terms["kl_count"], kl_divergence(q.count, stick_breaking(decisions)))
    exists = q.count.probs.flip(-1).cumsum(-1).flip(-1)[:, 1:]
    kl = kl_divergence(q.where.base_dist, where.base_dist).sum(-1)
    torch.testing.assert_close(terms["kl_where"], (exists * kl).sum(-1))


def test_samples_follow_the_prior_object_by_object() -> None:
    air = model("air-pprior", max_objects=3)
    z, count = air.sample_objects(4000, rng())
    assert z.shape == (4000, 3, air.latents)
    assert abs(z[..., 3:].mean().item()) < 0.03
    assert abs(z[..., 3:].std().item() - 1) < 0.03
    p = air.prior_count(z)
    assert abs((count == 0).double().mean().item() - p.probs[0].item()) < 0.04
    _, where = air.priors(z)
    assert where is not None
    standard = (z[..., :3] - where.base_dist.loc) / where.base_dist.scale  # each given the ones before it
    assert (standard.mean((0, 1)).abs() < 0.05).all()
    assert ((standard.std((0, 1)) - 1).abs() < 0.05).all()


def test_asr_without_constraints_is_pprior() -> None:
    asr = model("air-asr", constraints="")
    plain = model("air-pprior")
    torch.testing.assert_close(asr.loss(images(), rng()).total, plain.loss(images(), rng()).total)


def test_asr_adds_its_terms_with_their_weights() -> None:
    asr = model(
        "air-asr", constraints="overlap*3", allowed_counts="1,3", number_weight="7", margin_weight="11"
    )
    loss = asr.loss(images(), rng())
    assert {"overlap", "number", "number_margin"} < set(loss.terms)
    assert {name: loss.weights[name] for name in ("overlap", "number", "number_margin")} == {
        "overlap": 3.0,
        "number": 7.0,
        "number_margin": 11.0,
    }
    elbo = model("air-pprior").loss(images(), rng()).total
    parts = 3 * loss.terms["overlap"] + 7 * loss.terms["number"] + 11 * loss.terms["number_margin"]
    torch.testing.assert_close(loss.total, elbo + parts.mean())


def test_a_constraint_of_ones_own(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "def on_a_line(layout):\n"
        "    mean = layout.mean_over_objects(layout.y)\n"
        "    return layout.over_objects((layout.y - mean).square()) - 1.0\n"
    )
    (tmp_path / "scene_knowledge.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    asr = model("air-asr", constraints="overlap*1, scene_knowledge:on_a_line*0.5")
    loss = asr.loss(images(), rng())
    assert loss.weights["scene_knowledge:on_a_line"] == 0.5
    assert (loss.terms["scene_knowledge:on_a_line"] >= 0).all()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"constraints": "overlap*1,overlap*2"}, "names one twice"),
        ({"constraints": "overlop*1"}, "Did you mean 'overlap'"),
        ({"allowed_counts": "1,9"}, r"9 is not in 0\.\.3"),
        ({"size_range": "9,3"}, "expected 0 <= low <= high"),
        ({"constraints": "size*20"}, "constraint size needs size_range"),
        ({"count_prior": "autoregressive"}, "needs prior autoregressive"),
        ({"count_prior": "categorical", "count_weights": "0,0"}, "not all 0"),
        ({"estimator": "vimco", "particles": "1"}, "at least 2 particles"),
        ({"placing": "squashed", "object_scale": "1.5"}, "below 1"),
        ({"estimator": "magic"}, "one of enumerate"),
        ({"doubt": "0.5"}, "below 0.5"),
        ({"doubt": "-0.1"}, "0 or more"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        AIR.from_config(settings, SHAPE)


def test_count_prior_tightens_and_is_relaxed_as_training_goes() -> None:
    tightening = {"count_prior": "geometric", "anneal_start": 1e4, "anneal_steps": 100, "count_ratio": 1e-4}
    relaxing = {"relaxed_ratio": 1.0, "relax_begin": 200, "relax_steps": 100}
    air = model(**tightening, **relaxing)
    z = torch.zeros(1, 3, air.latents, dtype=torch.float64)

    def odds(step: int) -> float:
        air.training_step = step
        p = stick_breaking(air.priors(z)[0][0]).probs
        return float(p[3] / p[2])

    air.train()
    expected = {0: 1e4, 50: 1.0, 100: 1e-4, 200: 1e-4, 250: 1e-2, 300: 1.0, 10_000: 1.0}
    assert {step: odds(step) for step in expected} == pytest.approx(expected)
    air.eval()
    assert odds(0) == pytest.approx(1.0)
    air = model(**tightening, relaxed_ratio=0.0).train()
    assert odds(10_000) == pytest.approx(1e-4)


def test_doubt_teaches_counts_that_the_posterior_rules_out_and_fades() -> None:
    air = model(doubt=0.1, doubt_steps=10, presence_bias=-60.0).train()
    x, noise = air.as_float(images()), air.draw(3, rng())

    def felt_by_decoder(step: int) -> float:
        air.training_step = step
        (gradient,) = torch.autograd.grad(air.objective(x, noise).total, [air.decode[0].weight])
        return float(gradient.abs().sum())

    assert felt_by_decoder(0) == felt_by_decoder(10)
    assert felt_by_decoder(10) > felt_by_decoder(20) > 1e-3
    assert felt_by_decoder(30) < 1e-12  # nothing exists, by the posterior
    torch.testing.assert_close(air.objective(x, noise).total, air.negative_elbo(x, noise.z).total)
    air.eval()
    assert felt_by_decoder(0) < 1e-12  # only training doubts


@pytest.mark.parametrize("placing", [LogNormalScale(0.3, 0.2, 0.5), Squashed(0.27, 0.22, 1.0)])
def test_placing_is_invertible(placing: Placing) -> None:
    z = torch.randn(50, 3, dtype=torch.float64, generator=rng())
    torch.testing.assert_close(placing.z_where(placing.windows(z, 40, 60), 40, 60), z)


def test_squashed_windows_have_their_centre_on_the_canvas() -> None:
    windows = Squashed(0.269, 0.2236, 1.0).windows(4 * torch.randn(500, 3, generator=rng()), 50, 50)
    assert ((windows.x >= 0) & (windows.x <= 50)).all()
    assert windows.side.max() < 50
    at_mean = Squashed(0.269, 0.2236, 1.0).windows(torch.zeros(3), 50, 50)
    assert at_mean.side.item() == pytest.approx(13.45, abs=0.01)  # sigmoid(-1) of 50 pixels


def test_likelihoods_against_torch() -> None:
    canvas = torch.rand(4, 30, dtype=torch.float64, generator=rng()) * 1.3
    x = torch.rand(4, 30, dtype=torch.float64, generator=rng(1))
    torch.testing.assert_close(GaussianLikelihood(0.3)(canvas, x), Normal(canvas, 0.3).log_prob(x).sum(-1))
    expected = -torch.nn.functional.binary_cross_entropy(
        canvas.clamp(1e-7, 1 - 1e-7), x, reduction="none"
    ).sum(-1)
    torch.testing.assert_close(BernoulliLikelihood()(canvas, x), expected)


def test_tight_boxes_are_tight() -> None:
    objects = torch.zeros(1, 3, 1, 9, 8)
    objects[0, 0, 0, 2:5, 1:7] = 0.5
    objects[0, 1, 0, 8, 7] = 0.5
    objects[0, 2] = 0.05
    boxes = tight_boxes(objects, 0.1)[0]
    assert boxes[0].tolist() == [1, 2, 7, 5]
    assert boxes[1].tolist() == [7, 8, 8, 9]
    assert boxes[2].isnan().all()


def test_shared_pixels_sum_to_one_and_the_brightest_owns() -> None:
    objects = torch.rand(2, 3, 1, 6, 6, generator=rng())
    masks = share_pixels(objects, 0.1)
    torch.testing.assert_close(masks.sum(1), torch.ones(2, 6, 6))
    paint = torch.cat([torch.full((2, 1, 6, 6), 0.1), objects[:, :, 0]], 1)
    assert torch.equal(masks.argmax(1), paint.argmax(1))


def test_shared_input_lstm_is_an_lstm() -> None:
    ours = SharedInputLSTM(5, 3, 4).double()
    theirs = torch.nn.LSTM(8, 4, batch_first=True).double()
    order = torch.cat([torch.arange(8), torch.arange(12, 16), torch.arange(8, 12)])  # i f g o from i f o g
    assert ours.read_context is not None
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(
            torch.cat([ours.read_context.weight[order], ours.read_step.weight[order][:, 4:]], 1)
        )
        theirs.weight_hh_l0.copy_(ours.read_step.weight[order][:, :4])
        theirs.bias_ih_l0.copy_(ours.read_step.bias[order])
        theirs.bias_hh_l0.zero_()
    context = torch.randn(2, 5, dtype=torch.float64, generator=rng())
    steps = torch.randn(2, 6, 3, dtype=torch.float64, generator=rng(1))
    expected, _ = theirs(torch.cat([context[:, None].expand(-1, 6, -1), steps], -1))
    torch.testing.assert_close(ours.unroll(context, steps), expected)


def test_defaults_of_the_family_are_valid() -> None:
    for name in FAMILY:
        assert isinstance(build_model(name, {}, SHAPE, seed=0).config, AIRConfig)
