"""The parts that slot VAEs are made of, each against something written differently."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from multiobj_data.errors import UsageError
from reference_models.parts.nets import group_norm
from reference_models.parts.slots.answers import slot_prediction
from reference_models.parts.slots.broadcast import BroadcastDecoder, masked
from reference_models.parts.slots.colouring import InstanceColouring, clamped
from reference_models.parts.slots.encoders import ColouringEncoder
from reference_models.parts.slots.likelihood import SlotLikelihood
from reference_models.parts.slots.order import greedy_order, reordered
from reference_models.parts.slots.prior import Form, SlotLSTM, SlotPrior
from reference_models.parts.slots.scene_encoder import RelationLayer, SceneEncoder
from reference_models.parts.slots.slot_attention import SlotAttention
from reference_models.parts.slots.unet import UNet
from reference_models.slot_vae_settings import require_multiple

F64 = torch.float64


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=F64, generator=rng(seed))


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, dtype=F64, generator=rng(seed))


def painted(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return images, colours and log masks of 2 images, 3 slots and 2 channels."""
    return (
        rand(2, 2, 4, 5, seed=seed),
        rand(2, 3, 2, 4, 5, seed=seed + 1),
        randn(2, 3, 1, 4, 5).log_softmax(1),
    )


# --- normalisation --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "groups"), [(8, 1), (16, 2), (24, 3), (64, 8), (72, 8), (128, 8)])
def test_groups_are_eight_or_of_eight_channels(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups
    flat = randn(2, channels, 1, 1).expand(-1, -1, 4, 4)  # the same at all pixels, as a slot's colour is
    one, other = group_norm(channels).double()(flat)
    assert (one - other).abs().mean() > 0.3


# --- likelihood -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_channel", [True, False])
def test_mixture_is_torchs_own(per_channel: bool) -> None:
    images, colours, log_masks = painted()
    weights, centres = (
        log_masks[:, :, 0].movedim(1, -1),
        colours.movedim(1, -1),
    )  # [B, H, W, K], [B, C, H, W, K]
    if per_channel:
        each = Categorical(logits=weights[:, None].expand_as(centres))
        expected = MixtureSameFamily(each, Normal(centres, 0.3)).log_prob(images).sum((1, 2, 3))
    else:
        pixels = Independent(Normal(centres.movedim(1, -1), 0.3), 1)  # [B, H, W, K], event C
        mixture = MixtureSameFamily(Categorical(logits=weights), pixels)
        expected = mixture.log_prob(images.movedim(1, -1)).sum((1, 2))
    found = SlotLikelihood("mixture", 0.3, per_channel=per_channel)(images, colours, log_masks)
    torch.testing.assert_close(found, expected)


def test_gaussian_is_torchs_own_and_one_slot_makes_no_mixture() -> None:
    images, colours, log_masks = painted()
    blended = sum(log_masks[:, k].exp() * colours[:, k] for k in range(3))
    expected = Normal(blended, 0.3).log_prob(images).sum((1, 2, 3))
    torch.testing.assert_close(SlotLikelihood("gaussian", 0.3)(images, colours, log_masks), expected)
    alone = colours[:, :1], torch.zeros_like(log_masks[:, :1])
    gaussian, *mixtures = (
        SlotLikelihood(kind, 0.3, per_channel=per_channel)(images, *alone)
        for kind, per_channel in (("gaussian", True), ("mixture", True), ("mixture", False))
    )
    for mixture in mixtures:
        torch.testing.assert_close(mixture, gaussian)


@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
@pytest.mark.parametrize("normalised", [True, False])
def test_nothing_beats_the_floor(kind: str, normalised: bool) -> None:
    images, colours, log_masks = painted()
    likelihood = SlotLikelihood(kind, 0.7, normalised)  # type: ignore[arg-type]
    values = images[0].numel()
    assert (-likelihood(images, colours, log_masks) > likelihood.floor(values)).all()
    sure = torch.tensor([0.0, -torch.inf, -torch.inf], dtype=F64).view(1, 3, 1, 1, 1).expand_as(log_masks)
    perfect = -likelihood(images, images[:, None].expand_as(colours), sure)
    assert perfect.tolist() == pytest.approx([likelihood.floor(values)] * 2)
    off = -likelihood(images, images[:, None].expand_as(colours) + 0.05, sure)
    assert off.tolist() == pytest.approx([likelihood.error_at(0.05, values)] * 2)
    assert likelihood.floor(1) == pytest.approx(0.56226 if normalised else -0.35667, abs=1e-5)


def test_far_colours_stay_finite_in_single_precision() -> None:
    images, colours = torch.zeros(1, 3, 2, 2), torch.ones(1, 4, 3, 2, 2)
    log_masks = torch.full((1, 4, 1, 2, 2), 0.25).log()
    for per_channel in (True, False):
        found = SlotLikelihood("mixture", 0.02, per_channel=per_channel)(images, colours, log_masks)
        assert found.isfinite().all()
        assert found < -12 * 1000


# --- answers --------------------------------------------------------------------------------------------


def test_a_slot_is_there_if_it_owns_a_pixel() -> None:
    owner = torch.tensor([[[0, 0, 2, 2], [0, 0, 2, 0]]])  # slot 1 owns nothing
    log_masks = (nn.functional.one_hot(owner, 3).movedim(-1, 1)[:, :, None] * 2.0).log_softmax(1)
    prediction = slot_prediction(torch.rand(1, 3, 1, 2, 4), log_masks, torch.zeros(1, 3, 5))
    assert prediction.presence.tolist() == [[1, 0, 1]]
    assert prediction.boxes[0, 0].tolist() == [0, 0, 4, 2]
    assert prediction.boxes[0, 2].tolist() == [2, 0, 4, 2]
    assert prediction.boxes[0, 1].isnan().all()
    assert prediction.count is None
    assert prediction.background_slots == ()


# --- networks -------------------------------------------------------------------------------------------


def test_decoder_paints_each_slot_by_itself() -> None:
    decoder = BroadcastDecoder(8, (32, 16, 3), 8).double()
    z = randn(2, 4, 8)
    colours, logits = decoder(z)
    assert colours.shape == (2, 4, 3, 32, 16)
    assert logits.shape == (2, 4, 1, 32, 16)
    alone = decoder(z[1:, 2:3])
    torch.testing.assert_close(alone[0][0, 0], colours[1, 2])
    torch.testing.assert_close(alone[1][0, 0], logits[1, 2])
    assert masked((colours, logits))[1].exp().sum(1).sub(1).abs().max() < 1e-12


def test_decoder_equals_its_layers_one_by_one() -> None:
    decoder = BroadcastDecoder(8, (32, 48, 3), 16).double()
    z = randn(1, 1, 8)
    rows, columns = torch.linspace(-1, 1, 2, dtype=F64), torch.linspace(-1, 1, 3, dtype=F64)
    x = torch.empty(1, 10, 2, 3, dtype=F64)
    for i in range(2):
        for j in range(3):
            x[0, :, i, j] = torch.tensor([*z[0, 0].tolist(), rows[i], columns[j]])
    for layer in decoder.layers:
        x = layer(x)
    x = nn.functional.conv2d(x, decoder.paint.weight[:, :, None, None], decoder.paint.bias)
    colours, logits = decoder(z)
    torch.testing.assert_close(colours[0], x[:, :3].sigmoid())
    torch.testing.assert_close(logits[0], x[:, 3:])


def test_unet_is_the_published_one() -> None:
    unet = UNet(3, 64, 64, 64)
    assert sum(p.numel() for p in unet.parameters()) == 1_836_864  # Engelcke et al. 2021, released code
    assert [block[0].out_channels for block in UNet(3, 32, 32, 8).down] == [8, 16, 16, 16]
    assert [block[0].out_channels for block in UNet(3, 128, 128, 8).up] == [16, 16, 8, 8, 8, 8]
    features = UNet(1, 20, 50, 8).double()(rand(2, 1, 20, 50))  # sides that do not halve evenly
    assert features.shape == (2, 8, 20, 50)


def test_unet_sees_the_whole_image_everywhere() -> None:
    unet = UNet(1, 16, 16, 8).double()
    images = rand(1, 1, 16, 16).requires_grad_()
    (gradient,) = torch.autograd.grad(unet(images)[0, :, 0, 0].sum(), images)
    assert (gradient != 0).double().mean() > 0.9


# --- colouring ------------------------------------------------------------------------------------------


def reference_colouring(colours: Tensor, uniform: Tensor, slots: int, width: float) -> Tensor:
    """Cluster image by image and pixel by pixel, with probabilities: ``[B, K, P]``."""
    b, _, pixels = colours.shape
    masks = torch.zeros(b, slots, pixels, dtype=F64)
    for n in range(b):
        left = [1.0] * pixels
        for k in range(slots - 1):
            seed = max(range(pixels), key=lambda p: uniform[n, p].item() * left[p])
            for p in range(pixels):
                distance = sum((colours[n, :, p] - colours[n, :, seed]).tolist()[c] ** 2 for c in range(8))
                claim = min(max(math.exp(-distance / width), 0.01), 0.99)
                masks[n, k, p] = left[p] * claim
                left[p] *= 1 - claim
        masks[n, slots - 1] = torch.tensor(left)
    return masks


def test_colouring_is_the_loop_over_images_and_pixels() -> None:
    part = InstanceColouring(8, 4).double()
    features, uniform = randn(2, 8, 4, 5), rand(2, 4, 5)
    with torch.no_grad():
        part.gate.fill_(0.7)
        colours = part.colours(features)
        log_masks = part(features, uniform, 4)
        expected = reference_colouring(colours.flatten(2), uniform.flatten(1), 4, part.log_width.exp().item())
    torch.testing.assert_close(log_masks.flatten(2).exp(), expected)
    for slots in (2, 9):  # any number
        assert part(features, uniform, slots).exp().sum(1).sub(1).abs().max() < 1e-12


def test_colours_begin_as_positions() -> None:
    part = InstanceColouring(8, 4).double()
    with torch.no_grad():
        part.gate.zero_()
    colours = part.colours(randn(1, 8, 3, 5))[0]
    assert (colours[:6] == 0).all()
    torch.testing.assert_close(colours[6, :, 2], torch.tensor([-1.0, 0.0, 1.0], dtype=F64))
    torch.testing.assert_close(colours[7, 1], torch.linspace(-1, 1, 5, dtype=F64))


@pytest.mark.parametrize("kernel", ["gaussian", "laplacian", "epanechnikov"])
def test_every_kernel_claims_all_at_the_seed_and_less_further_off(kernel: str) -> None:
    part = InstanceColouring(8, 5, kernel=kernel).double()  # type: ignore[arg-type]
    squared = torch.linspace(0, 1, 20, dtype=F64)
    claim = part.claim(squared).detach()
    assert claim[0] == pytest.approx(1, abs=1e-4)
    assert (claim.diff() <= 0).all()
    assert claim[-1] < 0.25


def test_limited_claims_keep_their_gradient() -> None:
    part = torch.tensor([1e-6, 0.5, 1.0], dtype=F64, requires_grad=True)
    limited = clamped(part)
    assert limited.tolist() == pytest.approx([0.01, 0.5, 0.99])
    limited.sum().backward()
    assert part.grad is not None
    assert part.grad.tolist() == [1, 1, 1]


def test_features_are_read_as_if_each_pixel_were_mapped_first() -> None:
    encoder = ColouringEncoder((16, 16, 3), 8, 8, 3, 8, "gaussian").double()
    features, log_masks = randn(2, 8, 16, 16), (randn(2, 3, 16, 16) * 30).log_softmax(1)
    mapped = nn.functional.conv2d(features, encoder.gather.weight[:, :, None, None], encoder.gather.bias)
    for k in range(3):
        mask = log_masks[:, k : k + 1].exp()
        mean = (mask * mapped).sum((2, 3)) / (mask.sum((2, 3)) + 1e-5)
        torch.testing.assert_close(encoder.pool(features, log_masks)[:, k], mean)


# --- priors ---------------------------------------------------------------------------------------------


def test_lstm_is_torchs_own() -> None:
    ours, theirs = SlotLSTM(5, 7).double(), nn.LSTM(5, 7, batch_first=True).double()
    with torch.no_grad():
        for mine, name in (
            (ours.from_input, "weight_ih_l0"),
            (ours.from_hidden, "weight_hh_l0"),
            (ours.bias_input, "bias_ih_l0"),
            (ours.bias_hidden, "bias_hh_l0"),
        ):
            i, f, new, o = getattr(theirs, name).chunk(4)
            mine.copy_(torch.cat([i, f, o, new]))
    inputs = randn(3, 6, 5)
    torch.testing.assert_close(ours(inputs), theirs(inputs)[0])
    state = ours.begin(inputs)
    for t in range(6):
        state = ours.step(inputs[:, t], state)
        torch.testing.assert_close(state[0], theirs(inputs)[0][:, t])


def prior_of(form: Form, scene_size: int) -> SlotPrior:
    torch.manual_seed(0)
    return SlotPrior(4, scene_size, form, 16).double()


@pytest.mark.parametrize(("form", "scene_size"), [("genesis", 0), ("sri", 0), ("sri", 6)])
def test_rollout_and_teacher_forcing_agree_for_any_number_of_slots(form: Form, scene_size: int) -> None:
    prior = prior_of(form, scene_size)
    scene = randn(3, scene_size, seed=1) if scene_size else None
    for slots in (2, 7):
        noise = randn(3, slots, 4, seed=2)
        expected, z = prior.rollout(noise, scene)
        forced = prior(z, scene)
        torch.testing.assert_close(forced.mean, expected.mean)
        torch.testing.assert_close(forced.stddev, expected.stddev)
        torch.testing.assert_close(z, expected.mean + expected.stddev * noise)
        cold, z_cold = prior.rollout(noise, scene, temperature=0.0)
        torch.testing.assert_close(z_cold, cold.mean)


def test_prior_knows_only_the_past_and_the_scene() -> None:
    prior = prior_of("sri", 6)
    z, scene = randn(1, 4, 4).requires_grad_(), randn(1, 6, seed=1).requires_grad_()
    for t in range(4):
        out = prior(z, scene).mean[:, t].sum() + prior(z, scene).stddev[:, t].sum()
        of_z, of_scene = torch.autograd.grad(out, (z, scene), allow_unused=True)
        assert [bool((of_z[0, s] != 0).any()) for s in range(4)] == [s < t for s in range(4)]
        assert (of_scene != 0).any()
    with pytest.raises(ValueError, match="scene"):
        prior(z)


def test_without_a_scene_the_first_slot_is_standard_normal() -> None:
    for form in ("genesis", "sri"):
        p = prior_of(form, 0)(randn(2, 3, 4))  # type: ignore[arg-type]
        assert (p.mean[:, 0] == 0).all()
        assert (p.stddev[:, 0] == 1).all()
        assert (p.mean[:, 1:] != 0).all()
    bounded = prior_of("genesis", 0)(100 * randn(2, 3, 4))
    assert bounded.mean.abs().max() <= 1
    assert bounded.stddev.max() <= 1.0001


# --- scene and order ------------------------------------------------------------------------------------


def test_relations_are_the_published_equations() -> None:
    layer = RelationLayer(4).double()
    h = randn(1, 3, 4)
    expected = torch.empty_like(h)
    for i in range(3):
        values = [
            layer.value(nn.functional.gelu(layer.pair(torch.cat([h[0, i], h[0, i] - h[0, j]]))))
            for j in range(3)
        ]
        scores = torch.stack([layer.query(h[0, i]) @ layer.key(h[0, j]) for j in range(3)]) / 4**0.5
        attended = sum(w * v for w, v in zip(scores.softmax(0), values, strict=True))
        expected[0, i] = h[0, i] + layer.mlp(layer.norm(h[0, i] + attended))
    torch.testing.assert_close(layer(h), expected)


def test_scene_is_blind_to_the_order_of_slots() -> None:
    encoder = SceneEncoder(4, 6, 3).double()
    z = randn(2, 3, 4)
    one = encoder(z)
    for order in permutations(range(3)):
        other = encoder(z[:, list(order)])
        torch.testing.assert_close(other.mean, one.mean)
        torch.testing.assert_close(other.stddev, one.stddev)
    assert not torch.allclose(encoder(z + 1).mean, one.mean)


def test_greedy_order_is_the_algorithm_row_by_row() -> None:
    wanted, found = randn(50, 6, 3), randn(50, 6, 3, seed=1)
    order = greedy_order(wanted, found)
    for n in range(50):
        free = list(range(6))
        for place in range(6):
            nearest = min(free, key=lambda j: torch.dist(wanted[n, place], found[n, j]).item())
            assert order[n, place] == nearest
            free.remove(nearest)


def test_greedy_order_finds_a_permuted_copy() -> None:
    wanted = randn(4, 5, 3)
    shuffle = torch.stack([torch.randperm(5, generator=rng(n)) for n in range(4)])
    found = reordered(wanted, shuffle)
    torch.testing.assert_close(reordered(found, greedy_order(wanted, found)), wanted)


# --- Slot Attention -------------------------------------------------------------------------------------


def test_slot_attention_slots_compete_and_are_exchangeable() -> None:
    attention = SlotAttention(6, 8, 4, "shared").double()
    features, noise = randn(2, 20, 6), randn(2, 4, 8, seed=1)
    slots, log_masks = attention(features, noise)
    assert log_masks.exp().sum(1).sub(1).abs().max() < 1e-12
    order = [2, 0, 3, 1]
    other, other_masks = attention(features, noise[:, order])
    torch.testing.assert_close(other, slots[:, order])
    torch.testing.assert_close(other_masks, log_masks[:, order])
    more, _ = attention(features, randn(2, 7, 8))
    assert more.shape == (2, 7, 8)


def test_slots_with_normals_of_their_own_differ_without_noise() -> None:
    features, zeros = randn(2, 20, 6), torch.zeros(2, 4, 8, dtype=F64)
    own, _ = SlotAttention(6, 8, 4, "per-slot").double()(features, zeros)
    shared, _ = SlotAttention(6, 8, 4, "shared").double()(features, zeros)
    assert own.std(1).min() > 1e-4
    assert shared.std(1).max() < 1e-12


def test_slot_attention_is_the_published_round() -> None:
    attention = SlotAttention(6, 8, 3, "shared", rounds=1).double()
    features, noise = randn(1, 5, 6), randn(1, 3, 8, seed=1)
    slots = attention.first_loc[0] + attention.first_log_scale[0].exp() * noise[0]
    x = attention.norm_features(features[0])
    scores = attention.key(x) @ attention.query(attention.norm_slots(slots)).T / math.sqrt(8)  # [P, K]
    weights = scores.softmax(1) + 1e-8
    updates = (weights / weights.sum(0)).T @ attention.value(x)
    expected = attention.gru(updates, slots)
    expected = expected + attention.mlp(attention.norm_update(expected))
    torch.testing.assert_close(attention(features, noise)[0][0], expected)


def test_images_of_other_sizes_are_refused() -> None:
    with pytest.raises(UsageError, match="multiples of 16 and at least 32 pixels, got 50 x 64"):
        require_multiple("x", (50, 64, 3), 16, 32)
    with pytest.raises(UsageError, match="got 16 x 64"):
        require_multiple("x", (16, 64, 3), 16, 32)
    require_multiple("x", (32, 64, 3), 16, 32)
