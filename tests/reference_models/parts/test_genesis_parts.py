"""The parts that are GENESIS' own: masks by stick breaking, gated convolutions, components."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, softplus

from reference_models.parts.slots.components import LEAST_LOG_MASK, ComponentDecoder, ComponentEncoder
from reference_models.parts.slots.gated_convs import Gate, GatedDecoder, GatedEncoder
from reference_models.parts.slots.sequential_attention import SequentialPosterior, stick_breaking_masks


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=rng(seed), dtype=torch.float64)


def test_masks_share_what_is_left() -> None:
    logits = 3 * normal(2, 5, 1, 4, 3)
    left = torch.ones(2, 1, 4, 3, dtype=torch.float64)
    masks = []
    for slot in range(5):
        share = 1 / (1 + torch.exp(-logits[:, slot])) if slot < 4 else torch.ones_like(left)
        masks.append(left * share)
        left = left * (1 - share)
    found = stick_breaking_masks(logits).exp()
    torch.testing.assert_close(found, torch.stack(masks, dim=1))
    torch.testing.assert_close(found.sum(1), torch.ones_like(found[:, 0]))


def test_masks_stay_finite_where_probabilities_vanish() -> None:
    logits = torch.full((1, 4, 1, 1, 1), 400.0, dtype=torch.float64).requires_grad_()
    log_masks = stick_breaking_masks(logits)
    torch.testing.assert_close(log_masks.flatten().detach(), torch.tensor([0, -400, -800, -1200.0]).double())
    log_masks.sum().backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[0, -1].item() == 0  # the last slot takes what is left, whatever its logit says


def test_gate_normalises_both_halves_by_themselves() -> None:
    gate = Gate(3).double()
    h_norm, g_norm = nn.BatchNorm2d(3).double(), nn.BatchNorm2d(3).double()
    with torch.no_grad():
        gate.norm.weight.copy_(normal(6, seed=1))
        gate.norm.bias.copy_(normal(6, seed=2))
        for norm, half in ((h_norm, slice(0, 3)), (g_norm, slice(3, 6))):
            norm.weight.copy_(gate.norm.weight[half])
            norm.bias.copy_(gate.norm.bias[half])
    values = normal(4, 6, 5, 5)
    expected = h_norm(values[:, :3]) * g_norm(values[:, 3:]).sigmoid()
    torch.testing.assert_close(gate(values), expected)


def test_gated_encoder_is_convolutions_down_to_one_pixel() -> None:
    encoder = GatedEncoder(3, (4, 6), (2, 1), (4, 3), 5).double().eval()
    images = normal(2, 3, 8, 6)
    (first, _), (second, _) = encoder.layers
    last = encoder.gather[1]
    x = images
    for layer, stride in ((first, 2), (second, 1)):
        h, g = conv2d(x, layer.weight, stride=stride, padding=2).chunk(2, dim=1)
        x = h / (1 + 1e-5) ** 0.5 * (g / (1 + 1e-5) ** 0.5).sigmoid()  # first running averages: 0 and 1
    h, g = conv2d(x, last.weight.view(10, 6, 4, 3), last.bias).flatten(1).chunk(2, dim=1)
    torch.testing.assert_close(encoder(images), h * g.sigmoid())


def test_gated_decoder_is_transposed_convolutions() -> None:
    decoder = GatedDecoder(5, 4, (3, 2), (1, 2), (4, 3)).double().eval()
    z = normal(2, 5)
    spread = decoder.spread[0]
    h, g = conv_transpose2d(z[..., None, None], spread.weight, spread.bias).chunk(2, dim=1)
    x = h * g.sigmoid()
    for (layer, _), stride in zip(decoder.layers, (1, 2), strict=True):
        wide = conv_transpose2d(x, layer.weight, stride=stride, padding=2, output_padding=stride - 1)
        h, g = wide.chunk(2, dim=1)
        x = h / (1 + 1e-5) ** 0.5 * (g / (1 + 1e-5) ** 0.5).sigmoid()
    expected = conv2d(x, decoder.last.weight, decoder.last.bias)
    assert expected.shape == (2, 1, 8, 6)
    torch.testing.assert_close(decoder(z), expected)


def test_posterior_reads_the_samples_before() -> None:
    posterior = SequentialPosterior(features=6, latents=3, size=4).double()
    noise = normal(2, 4, 3).requires_grad_()
    q, z = posterior(normal(2, 6, seed=1), noise)
    torch.testing.assert_close(z, q.base_dist.loc + q.base_dist.scale * noise)
    for slot in range(4):
        (g,) = torch.autograd.grad(
            q.base_dist.loc[:, slot].sum(), noise, retain_graph=True, allow_unused=True
        )
        reach = torch.zeros(4) if g is None else g.abs().sum((0, 2))
        assert (reach > 0).tolist() == [before < slot for before in range(4)]


def test_first_mask_comes_from_the_image_alone() -> None:
    posterior = SequentialPosterior(features=6, latents=3, size=4).double()
    features = normal(2, 6)
    q, _ = posterior(features, normal(2, 4, 3, seed=1))
    loc, raw = posterior.first(features).chunk(2, dim=-1)
    torch.testing.assert_close(q.base_dist.loc[:, 0], loc)
    torch.testing.assert_close(q.base_dist.scale[:, 0], softplus(raw + 0.5) + 1e-8)


@pytest.mark.parametrize("shape", [(16, 16, 3), (12, 20, 1)])
def test_component_decoder_is_convolutions_over_a_broadcast_code(shape: tuple[int, int, int]) -> None:
    height, width, channels = shape
    decoder = ComponentDecoder(shape, latents=4, width=6).double()
    z = normal(2, 3, 4)
    rows = torch.linspace(-1, 1, height + 8, dtype=torch.float64)[:, None].expand(-1, width + 8)
    columns = torch.linspace(-1, 1, width + 8, dtype=torch.float64).expand(height + 8, -1)
    flat = z.reshape(6, 4, 1, 1).expand(-1, -1, height + 8, width + 8)
    x = torch.cat([flat, rows.expand(6, 1, -1, -1), columns.expand(6, 1, -1, -1)], dim=1)
    expected = decoder.rest(conv2d(x, decoder.first.weight, decoder.first.bias))
    colours = decoder(z)
    assert colours.shape == (2, 3, channels, height, width)
    torch.testing.assert_close(
        colours, expected.unflatten(0, (2, 3)), rtol=1e-6, atol=1e-6
    )  # its linspace is float32


def test_component_encoder_sees_each_slot_with_its_mask() -> None:
    encoder = ComponentEncoder((8, 8, 3), width=4, hidden=8, latents=2).double()
    images, log_masks = normal(2, 3, 8, 8), -normal(2, 3, 1, 8, 8).abs()
    q = encoder(images, log_masks)
    alone = encoder(images[1:], log_masks[1:, 2:])
    torch.testing.assert_close(q.base_dist.loc[1, 2], alone.base_dist.loc[0, 0])
    torch.testing.assert_close(q.base_dist.scale[1, 2], alone.base_dist.scale[0, 0])
    seen = torch.cat([log_masks[1, 2], images[1]])[None]  # the mask's logarithm first
    torch.testing.assert_close(q.base_dist.loc[1, 2], encoder.layers(seen)[0, :2])
    nothing = [
        encoder(images, torch.full_like(log_masks, value)).base_dist.loc for value in (LEAST_LOG_MASK, -1e4)
    ]
    torch.testing.assert_close(*nothing)
    other = encoder(images, log_masks - 1).base_dist.loc
    assert not torch.allclose(q.base_dist.loc, other)
