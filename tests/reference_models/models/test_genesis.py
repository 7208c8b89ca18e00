"""GENESIS, in both forms and with a scene variable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from multiobj_data.errors import UsageError
from reference_models import genesis as genesis_module
from reference_models.checkpoints import build_model, load_checkpoint
from reference_models.genesis import Found, Genesis, Noise
from reference_models.parts.slots import answers
from reference_models.parts.slots.likelihood import blend
from reference_models.together import train_together
from reference_models.training import train

SHAPE = (8, 12, 3)
SMALL = {"slots": 3, "slot_size": 6, "component_size": 4, "width": 4, "features": 8, "lstm_size": 8}
SMALLER = {"attention_size": 8, "component_hidden": 8, "scene_size": 5, "scene_layers": 1}
FORMS: dict[str, dict[str, Any]] = {
    "two stages": {},
    "one stage": {"two_stage": False},
    "scene": {"scene_variable": True},
    "one stage, scene": {"two_stage": False, "scene_variable": True},
}


def model(shape: tuple[int, int, int] = SHAPE, **config: Any) -> Genesis:
    built = build_model("genesis", {**SMALL, **SMALLER, **config}, shape, seed=0).double()
    assert isinstance(built, Genesis)
    return built


def images(n: int = 4) -> Tensor:
    return torch.as_tensor(np.random.default_rng(0).integers(0, 256, (n, *SHAPE), dtype=np.uint8))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("form", FORMS)
def test_every_parameter_gets_a_gradient(form: str) -> None:
    genesis = model(**FORMS[form])
    genesis.loss(images(), rng()).total.backward()
    silent = [key for key, p in genesis.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_posteriors_may_be_sure_from_the_start() -> None:
    def found(**config: Any) -> Found:
        genesis = model(**config)
        noise = Noise(*map(torch.zeros_like, genesis.draw(4, rng())))
        return genesis.infer(genesis.as_float(images()), noise)

    sure, told = found(first_sd=0.07), found(first_sd=0.07, first_mean_gain=5.0)
    for latent in (sure.masks, sure.components):
        assert latent is not None
        torch.testing.assert_close(latent.q.stddev, torch.full_like(latent.q.stddev, 0.07), rtol=1e-6, atol=0)
    apart, farther = (latents.masks.q.mean[:, 0] - latents.masks.q.mean[:1, 0] for latents in (sure, told))
    torch.testing.assert_close(farther, 5 * apart)


def test_last_mask_logit_is_not_used_but_its_latent_is() -> None:
    genesis = model()
    x, noise = genesis.as_float(images()), genesis.draw(4, rng())
    logits: list[Tensor] = []
    genesis.mask_logits.register_forward_hook(lambda module, seen, out: logits.append(out))
    error = genesis.objective(x, noise).terms["nll"].sum()
    (g,) = torch.autograd.grad(error, logits)
    assert (g.unflatten(0, (4, 3)).abs().sum((0, 2, 3, 4)) > 0).tolist() == [True, True, False]
    last = noise.masks.clone().requires_grad_()
    cost = genesis.objective(x, noise._replace(masks=last)).terms["kl_component"].sum()
    (g,) = torch.autograd.grad(cost, last)
    assert (g[:, -1].abs() > 0).any()


@pytest.mark.parametrize("form", FORMS)
def test_sampled_kls_have_the_analytic_ones_as_their_mean(form: str) -> None:
    # The last latent of each kind is drawn anew with all before it fixed: then both are about the same conditionals.
    draws = 500
    genesis = model((4, 4, 1), **FORMS[form]).eval()
    x = torch.rand(1, 1, 4, 4, generator=rng(), dtype=torch.float64).expand(draws, -1, -1, -1)
    noise = Noise(*(part.expand(draws, *part.shape[1:]).clone() for part in genesis.draw(1, rng(1))))
    fresh = genesis.draw(draws, rng(2))
    noise.masks[:, -1] = fresh.masks[:, -1]
    noise.components[:], noise.scene[:] = fresh.components, fresh.scene
    with torch.no_grad():
        found = genesis.infer(x, noise)
    latents = {"masks": found.masks, "components": found.components, "scene": found.scene}
    for name, latent in latents.items():
        if latent is None or (name == "masks" and found.scene is not None):
            continue  # with a scene, what is expected of the masks depends on the fresh s
        sampled, exact = latent.log_ratio().reshape(draws, -1), latent.kl().reshape(draws, -1)
        last = slice(-1, None) if name != "scene" else slice(None)
        if name == "masks":
            assert exact[:, last].std() < 1e-9
        difference = (sampled - exact)[:, last]
        error = difference.std(0) / draws**0.5
        assert (error > 0).all()
        assert (difference.mean(0).abs() < 4 * error).all()


@pytest.mark.parametrize("form", FORMS)
def test_loss_is_the_elbo_of_the_noise(form: str) -> None:
    genesis = model(**FORMS[form], geco=False, analytic_kl=False, likelihood="gaussian").eval()
    x, noise = genesis.as_float(images()), genesis.draw(4, rng())
    found = genesis.infer(x, noise)
    canvas = blend(found.colours, found.log_masks)
    expected = -torch.distributions.Normal(canvas, 0.7).log_prob(x).flatten(1).sum(1)
    for latent in (found.masks, found.components, found.scene):
        if latent is None:
            continue
        standard = torch.distributions.Normal(torch.zeros_like(latent.z), torch.ones_like(latent.z))
        p = standard if latent.p is None else latent.p.base_dist
        q = latent.q.base_dist
        expected = expected + (q.log_prob(latent.z) - p.log_prob(latent.z)).flatten(1).sum(1)
    torch.testing.assert_close(genesis.objective(x, noise).per_image, expected)


def test_terms_name_what_the_form_has() -> None:
    names = {form: set(model(**config).loss(images(), rng()).terms) for form, config in FORMS.items()}
    common = {"nll", "nll_beta", "kl_mask"}
    assert names == {
        "two stages": common | {"kl_component"},
        "one stage": common,
        "scene": common | {"kl_component", "kl_scene"},
        "one stage, scene": common | {"kl_scene"},
    }


def test_prior_means_are_bounded_in_samples_as_in_training() -> None:
    # The released code's sample() leaves out the tanh that its training has: it draws from another prior.
    genesis = model(two_stage=False)
    with torch.no_grad():
        genesis.prior.read.bias[:6] = 50.0
    drawn: list[Tensor] = []
    genesis.mask_logits.register_forward_hook(lambda module, seen, out: drawn.append(seen[0]))
    genesis.sample(2, rng(), temperature=1e-9)
    torch.testing.assert_close(
        drawn[0].unflatten(0, (2, 3))[:, 1:], torch.ones(2, 2, 6).double(), atol=1e-6, rtol=0
    )
    p = genesis.infer(genesis.as_float(images()), genesis.draw(4, rng())).masks.p
    assert p is not None
    torch.testing.assert_close(p.base_dist.loc[:, 1:], torch.ones(4, 2, 6).double())


def test_component_prior_reads_each_slots_own_mask_latent() -> None:
    genesis = model().eval()
    x, noise = genesis.as_float(images()), genesis.draw(4, rng())
    found = genesis.infer(x, noise)
    assert found.components is not None
    assert found.components.p is not None
    z = found.masks.z.detach().requires_grad_()
    assert genesis.expect is not None
    expected = genesis.expect(z)
    loc, raw = expected.chunk(2, dim=-1)
    torch.testing.assert_close(found.components.p.base_dist.loc, loc.tanh())
    torch.testing.assert_close(found.components.p.base_dist.scale, torch.sigmoid(raw + 4) + 1e-4)
    (g,) = torch.autograd.grad(expected[:, 1].sum(), z)
    assert (g.abs().sum((0, 2)) > 0).tolist() == [False, True, False]


@pytest.mark.parametrize("form", FORMS)
def test_samples_may_have_another_number_of_slots(form: str) -> None:
    genesis = model(**FORMS[form])
    assert genesis.sample(2, rng(), slots=5).shape == (2, *SHAPE)
    assert genesis.training
    _, log_masks = genesis.sample_slots(2, rng(), slots=5)
    torch.testing.assert_close(log_masks.exp().sum(1), torch.ones(2, 1, *SHAPE[:2]).double())


def test_cold_samples_are_all_alike() -> None:
    cold = model().sample(3, rng(), temperature=1e-9)
    torch.testing.assert_close(cold[0], cold[1])
    warm = model().sample(3, rng())
    assert (warm[0] - warm[1]).abs().max() > 1e-3


def test_scene_decides_the_masks_prior() -> None:
    genesis = model(scene_variable=True)
    z = torch.randn(1, 3, 6, dtype=torch.float64, generator=rng())
    scenes = torch.randn(2, 5, dtype=torch.float64, generator=rng(1))
    one, other = (genesis.prior(z, scene[None]).mean for scene in scenes)
    assert ((one - other).abs().sum((0, 2)) > 0).all()


def test_batch_statistics_are_of_training_alone() -> None:
    genesis = model()
    before = {name: buffer.clone() for name, buffer in genesis.named_buffers()}
    genesis.predict(images())
    genesis.sample(2, rng())
    assert all(torch.equal(buffer, before[name]) for name, buffer in genesis.named_buffers())
    genesis.loss(images(), rng())
    moved = [name for name, buffer in genesis.named_buffers() if not torch.equal(buffer, before[name])]
    assert any(name.endswith("running_mean") for name in moved)


def test_seeds_trained_as_one_have_batch_statistics_and_geco_of_their_own(
    source: Any, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "steps": 4,
        "batch_size": 8,
        "device": "cpu",
        "config": {**SMALL, **SMALLER, "geco_rate": 1e-3},
    }
    train("genesis", source, tmp_path / "alone", seed=1, **settings)
    train_together("genesis", source, tmp_path / "as one", seeds=(0, 1), **settings)
    alone, as_one = (
        load_checkpoint(tmp_path / run / "seed-1" / "checkpoint.pt").model.state_dict()
        for run in ("alone", "as one")
    )
    assert as_one["read.layers.0.1.norm.num_batches_tracked"] == as_one["geco.updates"] == 4
    for name, value in alone.items():
        torch.testing.assert_close(as_one[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_answers_are_alike_for_many_images_and_few(monkeypatch: pytest.MonkeyPatch) -> None:
    genesis = model().eval()
    together, drawn = genesis.predict(images(5)), genesis.sample(5, rng())
    for module in (genesis_module, answers):
        monkeypatch.setattr(module, "AT_ONCE", 2)
    apart = genesis.predict(images(5))
    for name, array in together.arrays().items():
        torch.testing.assert_close(apart.arrays()[name], array, equal_nan=True)
    torch.testing.assert_close(genesis.sample(5, rng()), drawn)


def test_likelihoods_of_answers_have_their_constants_however_it_is_trained() -> None:
    whole, without = model(), model(normalised=False, goal=-0.3)
    one, other = whole.predict(images()), without.predict(images())
    torch.testing.assert_close(one.log_likelihood, other.log_likelihood)
    assert one.likelihood_kind == other.likelihood_kind


@pytest.mark.parametrize("slots", [0, -1])
def test_no_slots_cannot_be_drawn(slots: int) -> None:
    with pytest.raises(UsageError, match=f"slots: expected 1 or more, got {slots}"):
        model().sample(2, rng(), slots=slots)


def test_geco_follows_the_error() -> None:
    genesis = model(geco_rate=1e-3)
    error = genesis.loss(images(), rng()).terms["nll"].mean()
    genesis.after_step({"nll": error})
    loss = genesis.loss(images(), rng())
    assert loss.weights["kl_mask"] == loss.weights["kl_component"] < 1
    assert loss.weights["nll"] == 1


@pytest.mark.parametrize(
    ("shape", "config"),
    [((50, 50, 3), {}), ((8, 10, 1), {}), ((12, 12, 3), {"strides": "2,2,2,1,1"}), ((2, 4, 3), {})],
)
def test_sizes_that_cannot_be_made_are_refused(shape: tuple[int, int, int], config: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"multiples of [48].*got \d+ x \d+"):
        model(shape, **config)


def test_strides_decide_the_sizes() -> None:
    genesis = model((16, 8, 1), strides="2,2,2,1,1")
    assert genesis.sample(1, rng()).shape == (1, 16, 8, 1)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"slots": 1}, "slots must be at least 2"),
        ({"strides": "1,2,1"}, "expected 5 whole numbers"),
        ({"strides": "1,2,0,1,1"}, "of 1 or more"),
        ({"goal": 0.5}, "a goal above 0.56"),
        ({"width": 0}, "width must be a positive"),
    ],
)
def test_bad_settings_are_refused(config: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        model(**config)


def test_half_precision_leaves_masks_and_costs_alone() -> None:
    genesis = model(**FORMS["scene"]).float()
    x, noise = genesis.as_float(images()), genesis.draw(4, rng())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = genesis.objective(x, noise)
        found = genesis.infer(x, noise)
    assert {term.dtype for term in loss.terms.values()} == {torch.float32}
    assert all(term.isfinite().all() for term in loss.terms.values())
    torch.testing.assert_close(found.log_masks.exp().sum(1), torch.ones(4, 1, *SHAPE[:2]))


def test_published_size() -> None:
    # The released model has 12,620,548: 896 more for biases of convolutions whose batch normalisation takes them away.
    genesis = build_model("genesis", {}, (64, 64, 3), seed=0)
    assert sum(p.numel() for p in genesis.parameters()) == 12_620_548 - 896
