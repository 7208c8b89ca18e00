from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from multiobj_data.errors import UsageError
from multiobj_data.scenes import Scenes
from reference_models.checkpoints import build_model, load_checkpoint
from reference_models.parts.nets import diagonal_normal
from reference_models.recording import TrainingLog
from reference_models.sri import SRI, STAGE, Inferred
from reference_models.training import train

SHAPE = (16, 16, 3)
SMALL = {"slots": 3, "slot_size": 8, "width": 8, "scene_size": 8, "lstm_size": 16, "first_gain": 1.0}
FORMS: list[tuple[str, Mapping[str, Any]]] = [
    ("sri", {}),
    ("sri", {"likelihood": "gaussian"}),
    ("sri", {"scene_variable": False}),  # ablation a
    ("sri", {"align": False, "cross_loss": False}),  # ablation b
    ("sri", {"cross_loss": False}),  # ablation c
    ("sri", {"segregation": "slot-attention"}),
]


def model(name: str = "sri", shape: tuple[int, int, int] = SHAPE, **config: Any) -> SRI:
    built = build_model(name, {**SMALL, **config}, shape, seed=0).double()
    assert isinstance(built, SRI)
    return built


def images(n: int = 3, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    return torch.as_tensor(np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=rng(seed))


def test_default_size_is_the_published_one() -> None:
    built = SRI.from_config({}, (64, 64, 3))
    assert sum(p.numel() for p in built.parameters()) == 3_634_450
    assert sum(p.numel() for p in built.segregation.parameters()) == 2_366_798


@pytest.mark.parametrize(("name", "config"), FORMS, ids=str)
def test_every_parameter_gets_a_gradient(name: str, config: Mapping[str, Any]) -> None:
    built = model(name, **config)
    built.loss(images(), rng()).total.backward()
    silent = [key for key, p in built.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize(("name", "config"), FORMS, ids=str)
def test_first_stage_learns_from_its_own_loss_alone(name: str, config: Mapping[str, Any]) -> None:
    built = model(name, **config)
    loss = built.loss(images(), rng())
    own = [loss.terms[key] for key in loss.terms if key.startswith(STAGE)]
    rest = [loss.terms[key] for key in loss.terms if not key.startswith(STAGE)]
    stage = set(built.segregation.parameters())
    others = [p for p in built.parameters() if p not in stage]
    of_rest = torch.autograd.grad(torch.stack(rest).sum(), [*stage], allow_unused=True, retain_graph=True)
    assert all(g is None for g in of_rest)
    of_own = torch.autograd.grad(torch.stack(own).sum(), others, allow_unused=True)
    assert all(g is None for g in of_own)


def test_rollout_loss_teaches_prior_and_scene() -> None:
    built = model()
    loss = built.loss(images(), rng())
    parts = [*built.prior.parameters(), *built.scene_encoder.parameters()]  # type: ignore[union-attr]
    gradients = torch.autograd.grad(loss.terms["kl_rollout"].sum(), parts)
    assert all(g.any() for g in gradients)


def test_order_of_the_first_stage_changes_nothing() -> None:
    built = model()
    means, z, noise = randn(3, 3, 8), randn(3, 3, 8, seed=1), built.draw(3, rng())
    order = [2, 0, 1]
    one, other = built.infer(means, z, noise), built.infer(means[:, order], z[:, order], noise)
    assert one.q_scene is not None
    assert other.q_scene is not None
    torch.testing.assert_close(other.q_scene.mean, one.q_scene.mean)
    torch.testing.assert_close(other.q_scene.stddev, one.q_scene.stddev)
    torch.testing.assert_close(other.q.mean, one.q.mean)  # brought into the rollout's order
    torch.testing.assert_close(other.q.stddev, one.q.stddev)
    unaligned = model(align=False, cross_loss=False)
    torch.testing.assert_close(unaligned.infer(means[:, order], z, noise).q.mean, means[:, order])


def test_posterior_keeps_the_means_and_pairs_them_with_the_rollout() -> None:
    built = model()
    noise = built.draw(3, rng())
    z = randn(3, 3, 8)
    scene = built.infer(z, z, noise).scene
    expected, _ = built.prior.rollout(noise.rollout, scene)
    shuffled = expected.mean[:, [1, 2, 0]].detach()
    found = built.infer(shuffled, z, noise)
    torch.testing.assert_close(found.q.mean, expected.mean)
    distance = built.kls(found, z)["kl_rollout"]
    by_hand = torch.distributions.kl_divergence(found.q, expected).sum(1)
    torch.testing.assert_close(distance, by_hand)
    torch.testing.assert_close(built.posterior(found.q.mean, scene).stddev, found.q.stddev)


def test_posterior_scales_know_only_the_slots_before() -> None:
    built = model()
    means, scene = randn(1, 3, 8).requires_grad_(), randn(1, 8)
    for k in range(3):
        (g,) = torch.autograd.grad(built.posterior(means, scene).stddev[:, k].sum(), means, allow_unused=True)
        assert [bool(g[0, j].any()) for j in range(3)] == [j < k for j in range(3)]


def test_slot_kl_is_what_samples_of_it_come_to() -> None:
    built, n = model(), 4000
    q = diagonal_normal(
        randn(1, 3, 8).expand(n, -1, -1), (randn(1, 3, 8, seed=1).abs() / 5 + 0.1).expand(n, -1, -1)
    )
    scene = randn(1, 8, seed=2).expand(n, -1)
    z = torch.addcmul(q.mean, q.stddev, randn(n, 3, 8, seed=3))
    with torch.no_grad():
        analytic = built.kls(Inferred(q, scene, None, None), z)["kl_slot"]
        ratio = (q.log_prob(z) - built.prior(z, scene).log_prob(z)).sum(1)
    assert abs((ratio - analytic).mean()) < 4 * (ratio - analytic).std() / n**0.5


@pytest.mark.parametrize(
    ("config", "terms"),
    [
        ({}, {"kl_scene", "kl_slot", "kl_rollout"}),
        ({"scene_variable": False}, {"kl_slot", "kl_rollout"}),
        ({"align": False, "cross_loss": False}, {"kl_scene", "kl_slot"}),
        ({"cross_loss": False}, {"kl_scene", "kl_slot"}),
    ],
)
def test_ablations_leave_out_what_they_say(config: Mapping[str, Any], terms: set[str]) -> None:
    loss = model(**config).loss(images(), rng())
    assert {name for name in loss.terms if name.startswith("kl")} == terms


def test_each_stage_has_a_geco_of_its_own() -> None:
    built = model()
    means = {"nll": torch.tensor(9e3), STAGE + "nll": torch.tensor(1e3)}
    built.after_step(means)
    assert built.geco is not None
    assert built.geco.average.item() == 9e3
    assert built.segregation.geco.average.item() == 1e3  # type: ignore[union-attr]
    beta, stage_beta = built.geco.weights().kl, built.segregation.geco.weights().kl  # type: ignore[union-attr, operator]
    loss = built.loss(images(), rng())
    own = loss.terms["nll"] + beta * (
        loss.terms["kl_scene"] + loss.terms["kl_slot"] + loss.terms["kl_rollout"]
    )
    stage = loss.terms[STAGE + "nll"] + stage_beta * loss.terms[STAGE + "kl_slot"]
    torch.testing.assert_close(loss.per_image, own + stage)


def test_samples_take_any_number_of_slots_and_temperature() -> None:
    built = model()
    assert built.sample(2, rng(), slots=5).shape == (2, *SHAPE)
    cold = built.sample(2, rng(), temperature=0.0)
    torch.testing.assert_close(cold[0], cold[1])
    assert not torch.allclose(*built.sample(2, rng()))


def test_scenes_can_be_given_and_images_imagined() -> None:
    built = model()
    scene = randn(1, 8).expand(2, -1)
    one, other = built.sample(2, rng(), temperature=0.0, scene=scene)
    torch.testing.assert_close(one, other)
    assert not torch.allclose(one, built.sample(1, rng(), temperature=0.0, scene=scene[:1] + 1)[0])
    imagined = built.imagine(images())
    assert imagined.shape == (3, *SHAPE)
    torch.testing.assert_close(imagined, built.imagine(images()))
    q = built.segregation.posterior(built.as_float(images()), built.segregation.fixed_noise(images()))
    assert built.scene_encoder is not None
    again = built.sample(3, rng(), temperature=0.0, scene=built.scene_encoder(q.mean).mean)
    torch.testing.assert_close(imagined, again)


def test_answers_leave_the_rollout_out_of_the_elbo() -> None:
    full, without = model(), model(cross_loss=False)
    without.load_state_dict(full.state_dict())
    torch.testing.assert_close(
        full.predict(images()).log_likelihood, without.predict(images()).log_likelihood
    )


def test_first_stage_takes_the_shared_settings_and_its_own() -> None:
    built = model(likelihood="gaussian", goal_rmse=0.1, segregation_settings="colours=4,goal_rmse=0.2")
    stage = built.segregation.config
    assert (stage.slots, stage.likelihood, stage.colours, stage.goal_rmse) == (3, "gaussian", 4, 0.2)
    assert stage.independent_prior
    assert not stage.scene_variable
    attention = model(segregation="slot-attention", segregation_settings="first_slots=per-slot")
    assert attention.segregation.config.first_slots == "per-slot"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"slots": "1"}, "slots must be at least 2"),
        ({"align": "no"}, "which needs align"),
        ({"segregation_settings": "width"}, "expected name=value"),
        ({"segregation_settings": "widht=8"}, "no setting 'widht'"),
        ({"segregation": "monet"}, "one of genesis-v2"),
        ({"goal": "0.5"}, "expected a goal above"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        SRI.from_config(settings, SHAPE)


class Noise:
    """Images of noise, as a source of training data."""

    image_shape = SHAPE
    reference: dict[str, Any] = {"folder": "/somewhere"}  # noqa: RUF012

    def __len__(self) -> int:
        return 20

    def images(self, indices: np.ndarray) -> np.ndarray:
        return images(20).numpy()[indices]

    def scenes(self, indices: np.ndarray) -> Scenes:
        raise NotImplementedError


def test_resumed_run_ends_with_the_same_bits_geco_included(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingLog, "draw", lambda log: None)
    settings: dict[str, Any] = {"seed": 1, "batch_size": 4, "device": "cpu", "config": SMALL}
    whole = train("sri", Noise(), tmp_path / "whole", steps=6, **settings)
    train("sri", Noise(), tmp_path / "parts", steps=3, **settings)
    parts = train("sri", Noise(), tmp_path / "parts", steps=6, resume=True, **settings)
    one, other = (load_checkpoint(r.checkpoint).model.state_dict() for r in (whole, parts))
    assert one["geco.updates"] == 6
    assert one["segregation.geco.log_beta"] < 0
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
