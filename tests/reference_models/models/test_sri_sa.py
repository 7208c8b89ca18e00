"""SRI-SA*: one VAE whose slots have an order of their own."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from reference_models.checkpoints import build_model
from reference_models.sri_sa import SRISA

SHAPE = (16, 16, 3)
SMALL = {"slots": 3, "slot_size": 8, "width": 8, "scene_size": 8, "lstm_size": 16, "first_sd": 0.05}


def model(**config: Any) -> SRISA:
    built = build_model("sri-sa", {**SMALL, **config}, SHAPE, seed=0).double()
    assert isinstance(built, SRISA)
    return built


def images(n: int = 4) -> Tensor:
    return torch.as_tensor(np.random.default_rng(0).integers(0, 256, (n, *SHAPE), dtype=np.uint8))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_it_is_one_vae_without_rollout_and_second_decoder() -> None:
    sri_sa = model()
    loss = sri_sa.loss(images(), rng())
    assert {"nll", "kl_slot", "kl_scene"} <= set(loss.terms) <= {"nll", "kl_slot", "kl_scene", "nll_beta"}
    assert [name for name, _ in sri_sa.named_children() if "decoder" in name] == ["decoder"]


def test_what_the_scene_costs_reaches_the_encoder() -> None:
    """SRI stops that gradient; here there is one stage."""
    sri_sa = model()
    for name in ("kl_scene", "kl_slot"):
        sri_sa.zero_grad()
        sri_sa.loss(images(), rng()).terms[name].mean().backward()
        assert sri_sa.encoder.unet.down[0][0].weight.grad.abs().max() > 0, name


def test_every_slot_begins_at_a_normal_of_its_own() -> None:
    attention = model(slots=5).encoder.attention
    for start in (attention.first_loc, attention.first_log_scale):
        assert start.shape == (5, 8)
        assert 0 < start.abs().max() <= (6 / (5 * 8)) ** 0.5  # Kaiming's uniform over a fan of K D


def test_the_order_of_slots_does_not_follow_their_noise() -> None:
    """Slots that all begin alike are permuted with their noise; those that begin at places of their own are not."""
    with torch.no_grad():
        for first, follows in (("shared", True), ("per-slot", False)):
            encoder = model(first_slots=first).encoder
            with_gain = torch.nn.init.normal_  # places that matter beside the noise
            with_gain(encoder.attention.first_loc, std=1.0, generator=rng(1))
            x = model().as_float(images())
            noise = torch.randn(4, 3, 8, dtype=torch.float64, generator=rng(2))
            swapped = [2, 0, 1]
            q, permuted = (encoder(x, each, 3)[0].mean for each in (noise, noise[:, swapped]))
            assert torch.allclose(q[:, swapped], permuted, atol=1e-9) == follows


def test_images_are_drawn_from_the_scene_down() -> None:
    sri_sa = model()
    scene = torch.randn(1, 8, dtype=torch.float64, generator=rng(3)).expand(2, -1)
    drawn = sri_sa.sample(2, rng(4), scene=scene)
    assert drawn.shape == (2, *SHAPE)
    assert not torch.equal(drawn, sri_sa.sample(2, rng(4), scene=-scene))
