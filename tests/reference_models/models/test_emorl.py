from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import conv2d

import reference_models.emorl as emorl_module
from multiobj_data.errors import UsageError
from reference_models.checks import check_model
from reference_models.emorl import EfficientMORL
from reference_models.parts.slots.dual_gru import DualGRU
from reference_models.parts.slots.hierarchy import (
    Layers,
    PriorKind,
    SlotHierarchy,
    SlotPriors,
    attend,
    sample_slots,
)
from reference_models.parts.slots.pixel_broadcast import PixelBroadcastDecoder, convolve_constant
from reference_models.parts.slots.prior import softplus_normal
from reference_models.parts.slots.refinement import Refinement
from reference_models.sri import SRI
from reference_models.together import train_together

SHAPE = (10, 12, 3)
SMALL: dict[str, Any] = {
    "slots": 3,
    "slot_size": 8,
    "encoder_channels": 8,
    "encoder_layers": 2,
    "decoder_channels": 8,
    "prior_size": 8,
    "refinement_size": 8,
    "late_refinement_steps": 2,
    "initial_gain": 0.7,  # large enough for all parts to matter
}


def model(shape: tuple[int, int, int] = SHAPE, **config: Any) -> EfficientMORL:
    torch.manual_seed(0)
    return EfficientMORL.from_config({**SMALL, **config}, shape).double()


def images(n: int = 3, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    return torch.as_tensor(np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=rng(seed))


def scale(raw: Tensor) -> Tensor:
    return torch.sqrt(torch.log1p(raw.exp()) + 1e-5)


# --- parts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("initial_sd", [None, 1.0])
def test_dual_gru_is_two_grus(initial_sd: float | None) -> None:
    dual = DualGRU(5, 4, initial_sd).double()
    cells = [nn.GRUCell(5, 4).double() for _ in range(2)]
    with torch.no_grad():
        for i, cell in enumerate(cells):
            cell.weight_ih.copy_(dual.read[i].T)
            cell.weight_hh.copy_(dual.recall[i].T)
            cell.bias_ih.copy_(dual.read_bias[i, 0])
            cell.bias_hh.copy_(dual.recall_bias[i, 0])
    update, state = normal(2, 3, 5), normal(2, 3, 8, seed=1)
    halves = state.flatten(0, 1).chunk(2, dim=-1)
    each = [cell(update.flatten(0, 1), half) for cell, half in zip(cells, halves, strict=True)]
    torch.testing.assert_close(dual(update, state), torch.cat(each, dim=-1).view(2, 3, 8))


def test_attention_is_a_choice_of_each_pixel_among_slots() -> None:
    queries, keys, values = normal(1, 3, 4), normal(1, 6, 4, seed=1), normal(1, 6, 4, seed=2)
    q, k, v = (tensor[0].numpy() for tensor in (queries, keys, values))
    chosen = np.empty((3, 6))
    for p in range(6):
        likes = np.array([np.exp(q[s] @ k[p] / 2.0) for s in range(3)])  # 2 = sqrt(4)
        chosen[:, p] = likes / likes.sum()
    expected = np.array([(weights[:, None] * v).sum(0) / weights.sum() for weights in chosen])
    torch.testing.assert_close(
        attend(queries, keys, values)[0], torch.as_tensor(expected), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize(("kernel", "padding"), [(3, 0), (5, 1), (3, 1)])
def test_convolution_of_a_constant_is_that_of_its_map(kernel: int, padding: int) -> None:
    z, weight = normal(2, 3), normal(4, 3, kernel, kernel, seed=1)
    expected = conv2d(z[:, :, None, None].expand(-1, -1, 9, 7), weight, padding=padding)
    found = convolve_constant(z, weight, (9, 7), padding).expand_as(expected)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("decoder", ["plain", "small"])
def test_broadcast_decoder_is_convolutions_over_latent_plus_place(decoder: str) -> None:
    net = model(decoder=decoder).decoder
    assert isinstance(net, PixelBroadcastDecoder)
    z = normal(2, 3, 8)
    right = net.positions[0, 0]
    assert (right[0, 0], right[0, -1]) == (1, 0)
    where = net.project(net.positions.movedim(1, -1)).movedim(-1, 1)
    maps = net.rest(net.first(z.flatten(0, 1)[:, :, None, None] + where)).unflatten(0, (2, 3))
    colours, mask_logits = net(z)
    assert colours.shape == (2, 3, 3, 10, 12)
    torch.testing.assert_close(colours, maps[:, :, :3].sigmoid())
    torch.testing.assert_close(mask_logits, maps[:, :, 3:])


def test_refinement_sees_the_direction_of_the_gradient_alone() -> None:
    step = Refinement(4, 8).double()
    parameters, gradient = normal(2, 3, 8), 1e3 * normal(2, 3, 8, seed=1)
    gradient.requires_grad_()
    change, state = step(parameters, gradient, None)
    assert state.shape == (6, 4)
    torch.testing.assert_close(step(parameters, 100 * gradient, None)[0], change, rtol=1e-5, atol=1e-7)
    mean_alone = torch.cat([100 * gradient[..., :4], gradient[..., 4:]], dim=-1)
    torch.testing.assert_close(step(parameters, mean_alone, None)[0], change, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(step(parameters, -gradient, None)[0], change)
    assert not torch.allclose(step(parameters, gradient, state)[0], change)
    assert torch.autograd.grad(change.sum(), gradient, allow_unused=True) == (None,)


def test_each_layer_goes_on_from_the_one_before() -> None:
    torch.manual_seed(0)
    hierarchy = SlotHierarchy(5, 4, 3, None).double()
    with torch.no_grad():
        hierarchy.first.copy_(normal(8))
    features, noise = normal(2, 7, 5), normal(2, 4, 3, 4, seed=1)
    mean, raw = (half.expand(2, 3, 4) for half in hierarchy.first.chunk(2))
    z = mean + scale(raw) * noise[:, 0]
    layers = hierarchy(features, noise)
    for layer in range(3):
        given = attend(hierarchy.ask(z), hierarchy.keys(features), hierarchy.values(features))
        state = hierarchy.update(given, torch.cat([mean, raw], dim=-1))
        mean, raw = state[..., :4], state[..., 4:]
        mean, raw = mean + hierarchy.adjust_mean(mean), raw + hierarchy.adjust_scale(raw)
        z = mean + scale(raw) * noise[:, 1 + layer]
        torch.testing.assert_close(layers.parameters[layer], torch.cat([mean, raw], dim=-1))
        torch.testing.assert_close(layers.z[layer], z)


@pytest.mark.parametrize("kind", ["reversed++", "reversed", "bottom-up"])
def test_divergences_of_the_layers_are_those_of_samples(kind: PriorKind) -> None:
    torch.manual_seed(0)
    hierarchy = SlotHierarchy(5, 4, 3, None).double()
    priors = SlotPriors(4, 6, kind, 3).double()
    layers = hierarchy(normal(1, 7, 5), normal(1, 4, 2, 4, seed=1))
    found = priors.kl(layers)  # [1, 3]
    for layer, parameters in enumerate(layers.parameters):
        neighbour = layer - 1 if kind == "bottom-up" else layer + 1
        mean, raw = parameters.chunk(2, dim=-1)
        q, p = Normal(mean, scale(raw)), Normal(torch.zeros_like(mean), 1.0)
        if 0 <= neighbour < 3:
            assert priors.link is not None
            mean, raw = priors.link(layers.z[neighbour]).chunk(2, dim=-1)
            p = Normal(mean, scale(raw))
        z = q.sample((20_000,))
        drawn = (q.log_prob(z) - p.log_prob(z)).sum((-1, -2, -3))
        assert abs(drawn.mean() - found[0, layer]) < 5 * drawn.std() / 20_000**0.5


def test_slots_are_exchangeable() -> None:
    emorl = model()
    x, noise, order = emorl.as_float(images()), normal(3, 6, 3, 8), torch.tensor([2, 0, 1])
    one, other = emorl.infer(x, noise), emorl.infer(x, noise[:, :, order])
    for step, permuted in zip(one.steps, other.steps, strict=True):
        torch.testing.assert_close(step.parameters[:, order], permuted.parameters)
        torch.testing.assert_close(step.log_masks[:, order], permuted.log_masks)
        torch.testing.assert_close(step.error, permuted.error)
        assert not torch.allclose(step.parameters[:, order], step.parameters)


def test_refinement_follows_the_gradient_of_the_whole_loss() -> None:
    emorl = model(prior="reversed", geco=True, goal=-1.0)
    assert emorl.geco is not None
    assert emorl.refinement is not None
    emorl.geco.updates.fill_(5000)
    emorl.geco.zeta.fill_(1.7)
    x, noise = emorl.as_float(images()), normal(3, 5, 3, 8)
    first, second = emorl.infer(x, noise).steps
    parameters = first.parameters.detach().requires_grad_()
    mean, raw = parameters.chunk(2, dim=-1)
    z = mean + scale(raw) * noise[:, 3]
    colours, logits = emorl.decoder(z)
    canvas = (colours * logits.softmax(1)).sum(1)
    nll = -(Normal(canvas, 0.1).log_prob(x) + 0.5 * np.log(2 * np.pi)).sum()
    torch.testing.assert_close(first.error.sum(), nll)
    # Of the layers' divergences, the last one's alone and what it is as a neighbour depend on the last layer.
    layers = emorl.hierarchy(emorl.encoder(2 * x - 1), noise[:, :4])
    assert emorl.priors.link is not None
    mean_p, raw_p = emorl.priors.link(z).chunk(2, dim=-1)
    mean_q, raw_q = layers.parameters[1].detach().chunk(2, dim=-1)
    kl = kl_divergence(Normal(mean, scale(raw)), Normal(torch.zeros_like(mean), 1.0)).sum()
    kl = kl + kl_divergence(Normal(mean_q, scale(raw_q)), Normal(mean_p, scale(raw_p))).sum()
    (gradient,) = torch.autograd.grad(float(np.log1p(np.exp(1.7))) * nll + kl, parameters)
    change, _ = emorl.refinement(parameters, gradient, None)
    torch.testing.assert_close(second.parameters, parameters + change, rtol=1e-5, atol=1e-7)


# --- learning -----------------------------------------------------------------------------------------


def test_noise_alone_says_how_often_is_refined() -> None:
    emorl = model(late_from=10)
    emorl.training_step = 9
    assert emorl.draw(4, rng()).shape == (4, 1 + 3 + 3, 3, 8)
    emorl.training_step = 10
    noise = emorl.draw(4, rng())
    assert noise.shape == (4, 1 + 3 + 2, 3, 8)
    assert len(emorl.infer(emorl.as_float(images(4)), noise).steps) == 3
    assert len(emorl.infer(emorl.as_float(images(4)), noise[:, :4]).steps) == 1


@pytest.mark.parametrize(
    ("weights", "expected"), [("code", [1.5, 1.25, 1.0, 0.75]), ("paper", [1.0, 0.75, 0.5, 0.25])]
)
def test_each_step_counts_by_its_weight(weights: str, expected: list[float]) -> None:
    emorl = model(refinement_weights=weights, geco=True, goal=-1.0, normalised=False)
    assert emorl.geco is not None
    emorl.geco.updates.fill_(5000)
    emorl.geco.zeta.fill_(1.7)
    zeta = float(np.log1p(np.exp(1.7)))
    x, noise = emorl.as_float(images()), normal(3, 7, 3, 8)
    steps = emorl.infer(x, noise).steps
    total = sum(w * (zeta * step.error + step.kl) for w, step in zip(expected, steps, strict=True))
    loss = emorl.objective(x, noise)
    torch.testing.assert_close(loss.per_image, total, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(loss.terms["nll"], steps[-1].error)


def test_gradients_that_are_taken_early_are_those_of_plain_differentiation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    emorl = model(geco=True, goal=-1.0)
    x, noise = emorl.as_float(images()), normal(3, 7, 3, 8)
    early = torch.autograd.grad(emorl.objective(x, noise).total, list(emorl.parameters()))
    monkeypatch.setattr(emorl_module, "differentiated", lambda function, z, parameters: function(z))
    plain = torch.autograd.grad(emorl.objective(x, noise).total, list(emorl.parameters()))
    for found, expected in zip(early, plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def test_a_loss_that_weighs_images_differently_is_refused() -> None:
    emorl = model()
    loss = emorl.loss(images(), rng())
    with pytest.raises(RuntimeError, match="expected a mean over images"):
        (loss.per_image * torch.arange(3)).sum().backward()


def test_seeds_together_are_refused_in_a_sentence(source: Any, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"emorl: .* gradients of its own.*train the seeds one after the other"
    ):
        train_together(
            "emorl", source, tmp_path, seeds=[0, 1], steps=1, batch_size=4, device="cpu", config=SMALL
        )


def test_loss_needs_no_gradients_to_be_computed() -> None:
    emorl = model()
    x, noise = emorl.as_float(images()), normal(3, 7, 3, 8)
    with torch.no_grad():
        found = emorl.objective(x, noise).per_image
    assert not found.requires_grad
    torch.testing.assert_close(found, emorl.objective(x, noise).per_image.detach())


def test_frozen_model_is_still_refined() -> None:
    emorl = model()
    expected = emorl.predict(images())
    torch.testing.assert_close(emorl.requires_grad_(False).predict(images()).masks, expected.masks)


@pytest.mark.parametrize(("geco_least", "weights"), [(0.05, (1.0055, 20.0)), (0.5, (1.0055, 2.0))])
def test_geco_weighs_kls_within_its_bounds(geco_least: float, weights: tuple[float, float]) -> None:
    geco = model(geco=True, goal=-1.0, geco_begin=0, geco_rate=1.0, geco_least=geco_least, geco_most=2.0).geco
    assert geco is not None
    for error, weight in zip((-1e6, 1e6), weights, strict=True):
        for _ in range(1000):
            geco.update(torch.tensor(error))
        assert float(geco.weights().error) == pytest.approx(weight, abs=1e-4)


def test_geco_begins_late_and_then_presses_on_the_error() -> None:
    emorl = model(geco=True, goal=-1.2, geco_begin=2, geco_rate=1.0)
    assert emorl.geco is not None
    seen = []
    for _ in range(4):
        loss = emorl.loss(images(), rng())
        seen.append(float(loss.weights["nll"]) / float(loss.weights["kl"]))
        emorl.after_step({name: term.detach().mean() for name, term in loss.terms.items()})
    assert seen[:2] == [1.0, 1.0]
    assert seen[2] == pytest.approx(1.0, abs=0.01)
    assert seen[3] > 100  # the random images are far from the goal


def test_training_on_a_toy_makes_refinement_worth_it() -> None:
    torch.manual_seed(0)
    emorl = EfficientMORL.from_config(
        {**SMALL, "gru_sd": None, "refinement_steps": 1, "late_refinement_steps": 1}, (8, 8, 1)
    )
    places = torch.randint(0, 5, (256, 2), generator=rng())
    squares = torch.zeros(256, 8, 8, 1, dtype=torch.uint8)
    for image, (y, x) in zip(squares, places.tolist(), strict=True):
        image[y : y + 3, x : x + 3] = 255
    optimiser = torch.optim.Adam(emorl.parameters(), lr=3e-3)
    for step in range(40):
        loss = emorl.loss(squares[torch.arange(16) + 16 * (step % 15)], rng(step)).total
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(emorl.parameters(), 5.0)
        optimiser.step()
    with torch.no_grad():
        steps = emorl.infer(emorl.as_float(squares[240:]), emorl.draw(16, rng(9))).steps
    first, last = [float((step.error + step.kl).mean()) for step in steps]
    assert last < first


def test_half_precision_keeps_latents_and_losses_in_full() -> None:
    emorl = model().float()
    x, noise = emorl.as_float(images()), normal(3, 6, 3, 8).float()
    exact = emorl.objective(x, noise)
    with torch.autocast("cpu", torch.bfloat16):
        rough = emorl.objective(x, noise)
        steps = emorl.infer(x, noise).steps
    assert {step.parameters.dtype for step in steps} == {torch.float32}
    assert {term.dtype for term in rough.terms.values()} == {torch.float32}
    torch.testing.assert_close(rough.total, exact.total, rtol=0.05, atol=0)


# --- answering ----------------------------------------------------------------------------------------


def test_answer_is_a_bound_with_every_layer_that_it_stands_on() -> None:
    emorl = model()
    x, noise = emorl.as_float(images()), emorl.fixed_noise(images())
    layers = emorl.hierarchy(emorl.encoder(2 * x - 1), noise[:, :4])
    last = emorl.infer(x, noise).steps[-1]
    assert emorl.priors.link is not None
    above = [*(emorl.priors.link(z) for z in layers.z[1:]), None]
    cost = torch.zeros(3, dtype=torch.float64)
    for layer, parameters in enumerate([last.parameters, *layers.parameters[1:]]):
        mean, raw = parameters.chunk(2, dim=-1)
        q, raw_p = Normal(mean, scale(raw)), above[layer]
        p = (
            Normal(torch.zeros_like(mean), 1)
            if raw_p is None
            else Normal(raw_p.chunk(2, -1)[0], scale(raw_p.chunk(2, -1)[1]))
        )
        z = layers.z[layer]  # layer 1's prior was drawn after it, and knows it
        each = q.log_prob(z) - p.log_prob(z) if layer == 1 else kl_divergence(q, p)
        cost = cost + each.sum((1, 2))
    canvas = (last.colours * last.log_masks.exp()).sum(1)
    density = Normal(canvas, 0.1).log_prob(x).sum((1, 2, 3))
    prediction = emorl.predict(images())
    torch.testing.assert_close(prediction.log_likelihood, (density - cost).detach())
    assert (
        prediction.likelihood_kind
        == "elbo; space=density; normalised=true; sd=0.1; mixture=none; pixel_range=1"
    )
    torch.testing.assert_close(prediction.masks.sum(1), torch.ones(3, 10, 12, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["reversed++", "bottom-up"])
def test_what_layers_cost_is_log_q_minus_log_p_on_average(kind: PriorKind) -> None:
    """Also where the prior looks at a sample drawn later, whose analytic KL has another mean."""
    priors = SlotPriors(2, 4, kind, 2).double()
    priors.link = nn.Linear(2, 4).double()  # z -> means, then raw scales
    with torch.no_grad():
        priors.link.weight.copy_(torch.cat([-0.9 * torch.eye(2), torch.zeros(2, 2)]))
        priors.link.bias.zero_()
        spread = torch.zeros(50_000, 1, 2, dtype=torch.float64)
        one = sample_slots(first := torch.cat([spread, spread], dim=-1), normal(50_000, 1, 2))
        two = sample_slots(second := torch.cat([0.5 * one, spread], dim=-1), normal(50_000, 1, 2, seed=1))
        layers = Layers([first, second], [one, two])
        neighbours = [priors.given(two), None] if kind == "reversed++" else [None, priors.given(one)]
        true = torch.zeros(50_000, dtype=torch.float64)
        for z, parameters, p in zip(layers.z, layers.parameters, neighbours, strict=True):
            log_p = Normal(0.0, 1.0).log_prob(z).sum(-1) if p is None else p.log_prob(z)
            true += (softplus_normal(parameters).log_prob(z) - log_p).sum(1)
        apart = {
            name: true - each.sum(1)
            for name, each in (("cost", priors.cost(layers)), ("kl", priors.kl(layers)))
        }
    errors = {name: float(each.std()) / 50_000**0.5 for name, each in apart.items()}
    assert abs(float(apart["cost"].mean())) < 4 * errors["cost"]
    looks_ahead = kind == "reversed++"
    assert (abs(float(apart["kl"].mean())) > 20 * errors["kl"]) == looks_ahead


def test_pictures_are_those_of_the_codes_that_are_answered() -> None:
    emorl = model()
    prediction = emorl.predict(images())
    with torch.no_grad():
        colours, log_masks = emorl.paint(prediction.slots.double())
    torch.testing.assert_close(prediction.masks, log_masks.exp()[:, :, 0])
    assert colours.shape == (3, 3, 3, 10, 12)


def test_answers_are_alike_for_many_images_and_few(monkeypatch: pytest.MonkeyPatch) -> None:
    emorl = model()
    together = emorl.predict(images(5))
    monkeypatch.setattr(emorl_module, "ANSWER_CHUNK", 2)
    torch.testing.assert_close(emorl.predict(images(5)).masks, together.masks)


@pytest.mark.parametrize(
    ("prior", "refined", "links"),
    [
        ("reversed++", 2, 2),
        ("reversed++", 0, 0),
        ("reversed", 2, 0),
        ("bottom-up", 2, 0),
        ("bottom-up", 0, 2),
    ],
)
def test_samples_come_from_the_prior_of_what_is_decoded(prior: str, refined: int, links: int) -> None:
    emorl = model(prior=prior, answer_refinement_steps=refined)
    found = emorl.sample(2, rng(), slots=4)
    noise = torch.randn(2, 1 + links, 4, 8, generator=rng(), dtype=torch.float64)
    z = noise[:, 0]
    assert emorl.priors.link is not None
    for link in range(links):
        mean, raw = emorl.priors.link(z).chunk(2, dim=-1)
        z = mean + scale(raw) * noise[:, 1 + link]
    colours, logits = emorl.decoder(z)
    canvas = (logits.softmax(1) * colours).sum(1).movedim(1, -1)
    torch.testing.assert_close(found, canvas)


def test_cold_samples_are_all_alike() -> None:
    cold = model().sample(3, rng(), temperature=0.0)
    torch.testing.assert_close(cold, cold[:1].expand_as(cold))


# --- sizes and settings -------------------------------------------------------------------------------


def test_size_is_the_published_one() -> None:
    emorl = EfficientMORL.from_config({"slots": "7"}, (64, 64, 3))
    # 666,502 in the released code, where the two numbers of GECO's state are parameters.
    assert sum(p.numel() for p in emorl.parameters()) == 666_500


def test_first_weights_are_small_but_for_the_dual_gru() -> None:
    emorl = EfficientMORL.from_config({}, (20, 18, 3))
    decoder = emorl.decoder
    assert isinstance(decoder, PixelBroadcastDecoder)
    fan = 2 * 64 * 9
    assert decoder.first.weight.std().item() == pytest.approx(0.02 * (2 / fan) ** 0.5, rel=0.1)
    assert decoder.first.bias is not None
    assert not decoder.first.bias.any()
    assert emorl.hierarchy.update.recall.std().item() == pytest.approx(1.0, rel=0.1)
    assert emorl.encoder.project.weight.abs().max() > 0.3


@pytest.mark.parametrize(
    ("shape", "config"),
    [
        ((10, 12, 1), {}),
        ((10, 12, 3), {"decoder": "small", "prior": "reversed", "geco": True, "goal": "-1"}),
        ((16, 16, 3), {"decoder": "big", "layers": "1", "prior": "reversed"}),
        ((16, 32, 3), {"decoder": "upsampling", "likelihood": "mixture", "prior": "bottom-up"}),
        ((10, 12, 3), {"refinement_steps": "0", "late_refinement_steps": "0", "initial_gain": "none"}),
    ],
    ids=str,
)
def test_every_variant_keeps_the_contract(shape: tuple[int, int, int], config: dict[str, Any]) -> None:
    check_model(EfficientMORL.from_config({**SMALL, **config}, shape), shape)


def test_sri_stands_on_it() -> None:
    stage = [f"{name}={value}" for name, value in SMALL.items() if name not in ("slots", "slot_size")]
    config = {
        "segregation": "emorl",
        "slots": 3,
        "slot_size": 8,
        "width": 8,
        "segregation_settings": tuple(stage),
    }
    sri = SRI.from_config(
        {**config, "likelihood": "gaussian", "likelihood_sd": 0.1, "goal": 0.0}, (16, 16, 3)
    )
    check_model(sri, (16, 16, 3))
    loss = sri.loss(images(2, (16, 16, 3)), rng())
    own = sum(
        term.mean() * loss.weights.get(name, 1.0)
        for name, term in loss.terms.items()
        if not name.startswith("segregation_")
    )
    stage_parameters = list(sri.segregation.parameters())
    assert all(g is None for g in torch.autograd.grad(own, stage_parameters, allow_unused=True))


@pytest.mark.parametrize(
    ("shape", "config", "sentence"),
    [
        (SHAPE, {"slots": "1"}, "at least 2"),
        (SHAPE, {"decoder": "big"}, "multiples of 16.*got 10 x 12"),
        (SHAPE, {"decoder": "upsampling"}, "multiples of 16.*got 10 x 12"),
        ((16, 16, 3), {"decoder": "upsampling", "decoder_channels": "12"}, "multiples of 8, got 12"),
        (SHAPE, {"geco": "true", "goal": "-2.31"}, "above -2.30"),
        (SHAPE, {"layers": "1"}, "layers of 2 or more, got 1"),
        (SHAPE, {"refinement_steps": "0"}, "set all three to 0"),
        (SHAPE, {"likelihood_sd": "0"}, "positive"),
    ],
)
def test_impossible_settings_are_refused(
    shape: tuple[int, int, int], config: dict[str, str], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        EfficientMORL.from_config({**SMALL, **config}, shape)
