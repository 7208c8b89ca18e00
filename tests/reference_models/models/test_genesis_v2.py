from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Independent
from torch.func import functional_call, stack_module_state, vmap

from multiobj_data.errors import UsageError
from reference_models.base import Loss
from reference_models.checkpoints import build_model
from reference_models.genesis_v2 import GenesisV2
from reference_models.parts.nets import diagonal_normal

SHAPE = (16, 32, 3)
SMALL = {"slots": 3, "slot_size": 8, "width": 8, "scene_size": 8, "lstm_size": 16}
FORMS: list[Mapping[str, Any]] = [
    {},
    {"likelihood": "gaussian", "normalised": False},
    {"scene_variable": True},
    {"independent_prior": True},
    {"analytic_kl": False, "geco": False},
    {"grouping": "slot-attention"},
    {"grouping": "slot-attention", "first_slots": "per-slot", "kernel": "laplacian"},
]


def model(seed: int = 0, **config: Any) -> GenesisV2:
    built = build_model("genesis-v2", {**SMALL, **config}, SHAPE, seed).double()
    assert isinstance(built, GenesisV2)
    return built


def images(n: int = 3) -> Tensor:
    return torch.as_tensor(np.random.default_rng(0).integers(0, 256, (n, *SHAPE), dtype=np.uint8))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("config", "count"),
    [({"independent_prior": True}, 2_366_798), ({}, 2_366_798 + 362_624)],  # SRI's stage; plus LSTM and layer
)
def test_default_size_is_the_published_one(config: dict[str, Any], count: int) -> None:
    built = GenesisV2.from_config(config, (64, 64, 3))
    assert sum(p.numel() for p in built.parameters()) == count


@pytest.mark.parametrize("config", FORMS, ids=str)
def test_every_parameter_gets_a_gradient(config: Mapping[str, Any]) -> None:
    built = model(**config)
    built.loss(images(), rng()).total.backward()
    silent = [name for name, p in built.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("config", FORMS, ids=str)
def test_masks_sum_to_one_whatever_groups_the_pixels(config: Mapping[str, Any]) -> None:
    built = model(**config)
    x, noise = built.as_float(images()), built.draw(3, rng())
    q, attended = built.encoder(x, noise.grouping, 3)
    assert attended.shape == (3, 3, *SHAPE[:2])
    assert attended.exp().sum(1).sub(1).abs().max() < 1e-9
    colours, log_masks = built.decode(q.mean)
    assert colours.shape == (3, 3, 3, *SHAPE[:2])
    assert log_masks.exp().sum(1).sub(1).abs().max() < 1e-9


@pytest.mark.parametrize(("scene", "independent"), [(False, False), (True, False), (False, True)])
def test_analytic_kl_is_what_samples_of_it_come_to(scene: bool, independent: bool) -> None:
    n = 4000
    sampled, analytic = (
        model(analytic_kl=kind, scene_variable=scene, independent_prior=independent) for kind in (False, True)
    )
    loc, scale = torch.randn(1, 3, 8, generator=rng()), torch.rand(1, 3, 8, generator=rng(1)) / 2 + 0.1
    q = diagonal_normal(*(part.double().expand(n, -1, -1) for part in (loc, scale)))
    z = torch.addcmul(q.mean, q.stddev, torch.randn(n, 3, 8, dtype=torch.float64, generator=rng(2)))
    noise = torch.randn(n, 8, dtype=torch.float64, generator=rng(3)) if scene else None
    with torch.no_grad():
        difference = sampled.kls(q, z, noise)["kl_slot"] - analytic.kls(q, z, noise)["kl_slot"]
    if scene:  # drawn after the slots, of which it knows: analytic KLs would have another mean
        assert not difference.any()
        return
    assert difference.std() > 0.1
    assert abs(difference.mean()) < 4 * difference.std() / n**0.5


def test_scene_costs_what_samples_of_it_come_to() -> None:
    built, n = model(scene_variable=True), 4000
    z = torch.randn(1, 3, 8, generator=rng()).double()
    assert built.scene_encoder is not None
    with torch.no_grad():
        q_scene = built.scene_encoder(z)
        q = diagonal_normal(z, torch.ones_like(z))
        kl = built.kls(q, z, torch.zeros(1, 8, dtype=torch.float64))["kl_scene"]
        s = q_scene.mean + q_scene.stddev * torch.randn(n, 8, dtype=torch.float64, generator=rng(1))
        standard = Independent(torch.distributions.Normal(torch.zeros_like(s), torch.ones_like(s)), 1)
        ratio = q_scene.log_prob(s) - standard.log_prob(s)
    assert abs(ratio.mean() - kl) < 4 * ratio.std() / n**0.5


def test_slots_are_a_function_of_their_seeds() -> None:
    built = model()
    x, noise = built.as_float(images()), built.draw(3, rng())
    one = built.posterior(x, noise).mean
    torch.testing.assert_close(built.posterior(x, noise).mean, one)
    other = built.posterior(x, noise._replace(grouping=built.draw(3, rng(1)).grouping)).mean
    assert not torch.allclose(one, other)


def test_loss_is_of_a_sample_of_the_posterior() -> None:
    built = model(likelihood="gaussian", geco=False)
    x, noise = built.as_float(images()), built.draw(3, rng())
    q = built.posterior(x, noise)
    found = built.segregate(x, noise)
    torch.testing.assert_close((found.z - q.mean) / q.stddev, noise.z)
    colours, log_masks = built.decode(found.z)
    blended = (log_masks.exp() * colours).sum(1)
    expected = torch.distributions.Normal(blended, 0.7).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(found.loss.terms["nll"], -expected)


def test_loss_is_the_negative_elbo_until_geco_moves() -> None:
    plain, balanced = model(geco=False), model(goal_rmse=0.05)
    loss = balanced.loss(images(), rng())
    torch.testing.assert_close(loss.total, plain.loss(images(), rng()).total)
    means = {name: term.mean() for name, term in loss.terms.items()}
    balanced.after_step(means)
    assert balanced.geco is not None
    excess = means["nll"].item() - balanced.geco.goal
    values, pixels = 16 * 32 * 3, 16 * 32
    assert balanced.geco.goal == pytest.approx(values * (0.5622646 + 0.5 * (0.05 / 0.7) ** 2), rel=1e-5)
    later = balanced.loss(images(), rng())
    beta = np.exp(-1e-5 * 64**2 / pixels * excess)
    assert later.total.item() == pytest.approx((means["nll"] + beta * means["kl_slot"]).item())


def test_answers_do_not_depend_on_the_constant_that_training_leaves_out() -> None:
    one, other = model(), model(normalised=False)
    torch.testing.assert_close(one.predict(images()).log_likelihood, other.predict(images()).log_likelihood)
    assert "normalised=true" in (other.predict(images()).likelihood_kind or "")


def test_many_images_are_decoded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    built = model()
    whole = built.predict(images(5)), built.sample(5, rng())
    monkeypatch.setattr("reference_models.parts.slots.answers.AT_ONCE", 2)
    decoded: list[int] = []
    decode = built.decode
    monkeypatch.setattr(built, "decode", lambda z: (decoded.append(len(z)), decode(z))[1])
    parts = built.predict(images(5)), built.sample(5, rng())
    assert decoded == [2, 2, 1] * 3
    torch.testing.assert_close(parts[0].masks, whole[0].masks)
    torch.testing.assert_close(parts[0].log_likelihood, whole[0].log_likelihood)
    torch.testing.assert_close(parts[1], whole[1])


def test_samples_take_any_number_of_slots_and_temperature() -> None:
    built = model(scene_variable=True)
    assert built.sample(2, rng(), slots=5).shape == (2, *SHAPE)
    cold = built.sample(2, rng(), temperature=0.0)
    torch.testing.assert_close(cold[0], cold[1])
    torch.testing.assert_close(built.sample(2, rng()), built.sample(2, rng(), temperature=1.0))
    assert not torch.allclose(built.sample(2, rng()), built.sample(2, rng(), temperature=2.0))


def test_seeds_can_be_trained_as_one() -> None:
    models = [model(seed) for seed in (0, 1)]
    x = models[0].as_float(images())
    noises = [m.draw(3, rng(s)) for s, m in enumerate(models)]
    parameters, buffers = stack_module_state(models)  # type: ignore[arg-type]

    def total(parameters: Any, buffers: Any, grouping: Tensor, z: Tensor) -> Tensor:
        noise = noises[0]._replace(grouping=grouping, z=z)
        return functional_call(Objective(models[0]), (prefixed(parameters), prefixed(buffers)), (x, noise))

    together = vmap(total)(
        parameters, buffers, torch.stack([n.grouping for n in noises]), torch.stack([n.z for n in noises])
    )
    alone = torch.stack([m.objective(x, n).total for m, n in zip(models, noises, strict=True)])
    torch.testing.assert_close(together, alone)


def prefixed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"model.{name}": value for name, value in state.items()}


class Objective(torch.nn.Module):
    """A model's total loss, as a module to swap the state of."""

    def __init__(self, built: GenesisV2) -> None:
        super().__init__()
        self.model = built

    def forward(self, x: Tensor, noise: Any) -> Tensor:
        loss: Loss = self.model.objective(x, noise)
        return loss.total


def test_half_precision_is_for_the_convolutions_alone() -> None:
    built = build_model("genesis-v2", SMALL, SHAPE, 0)
    x, noise = built.as_float(images()), built.draw(3, rng())
    plain = built.objective(x, noise)
    with torch.autocast("cpu", torch.bfloat16):
        half = built.objective(x, noise)
        assert built.decoder(noise.z)[0].dtype == torch.bfloat16
        q, attended = built.encoder(x, noise.grouping, 3)
    assert {t.dtype for t in (q.mean, q.stddev, attended, *half.terms.values())} == {torch.float32}
    assert attended.exp().sum(1).sub(1).abs().max() < 1e-6
    torch.testing.assert_close(half.total, plain.total, rtol=2e-2, atol=0)


def test_beta_stays_in_its_limits() -> None:
    built = model(geco_rate=1.0, geco_least=0.25, geco_most=4.0)
    assert built.geco is not None
    for error, beta in ((1e6, 0.25), (-1e12, 4.0)):
        for _ in range(3):
            built.after_step({"nll": torch.tensor(error)})
        assert built.geco.weights().kl.item() == pytest.approx(beta)


@pytest.mark.parametrize("grouping", ["colouring", "slot-attention"])
def test_posterior_may_be_sure_from_the_start(grouping: str) -> None:
    x, noise = model(grouping=grouping).as_float(images()), model(grouping=grouping).draw(3, rng())
    plain = model(grouping=grouping).posterior(x, noise)
    sure = model(grouping=grouping, first_sd=0.07).posterior(x, noise)
    torch.testing.assert_close(sure.stddev, torch.full_like(sure.stddev, 0.07), rtol=2e-3, atol=0)
    torch.testing.assert_close(sure.mean, plain.mean)
    told = model(grouping=grouping, first_sd=0.07, first_mean_gain=5.0).posterior(x, noise)
    apart, farther = (q.mean - q.mean.flip(0) for q in (sure, told))
    torch.testing.assert_close(farther, 5 * apart)


@pytest.mark.parametrize(
    ("settings", "shape", "sentence"),
    [
        ({"slots": "1"}, SHAPE, "slots must be at least 2"),
        ({"width": "12"}, SHAPE, "width must be a multiple of 8"),
        ({"slot_size": "4"}, SHAPE, "slot_size must be a multiple of 8"),
        ({"first_mean_gain": "3"}, SHAPE, "set first_sd"),
        ({"first_sd": "0"}, SHAPE, "first_sd must be a positive number"),
        ({"geco_least": "2", "geco_most": "1"}, SHAPE, "geco_least must be below geco_most, got 2.0 and 1.0"),
        ({"colours": "1"}, SHAPE, "colours must be at least 2"),
        ({"likelihood_sd": "0"}, SHAPE, "likelihood_sd must be a positive number"),
        ({"goal": "0.5"}, SHAPE, r"expected a goal above 0\.562264"),
        ({"goal": "nan"}, SHAPE, "goal must be a number"),
        ({"goal": "-0.36", "likelihood": "gaussian", "normalised": "no"}, SHAPE, r"above -0\.356675"),
        ({"scene_variable": "yes", "independent_prior": "yes"}, SHAPE, "unset one"),
        ({"kernel": "box"}, SHAPE, "one of gaussian"),
        ({}, (40, 32, 3), "multiples of 16 .* got 40 x 32"),
    ],
)
def test_impossible_settings_are_refused(
    settings: dict[str, str], shape: tuple[int, int, int], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        GenesisV2.from_config(settings, shape)
