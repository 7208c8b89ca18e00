"""Released weights as ours: every number arrives, and what a layer does with it is what theirs does.

What theirs does is computed here once more, in its own words: by `torch.nn.LSTM`, by convolutions with a bias, by two
GRUs, by attention over pairs.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, gelu, layer_norm, linear

from reference_models.emorl import EfficientMORL
from reference_models.genesis import Genesis
from reference_models.genesis_v2 import GenesisV2
from reference_models.released import import_weights
from reference_models.sri import SRI

State = dict[str, Tensor]
SMALL_V2 = {"slot_size": 8, "width": 8, "lstm_size": 32}
SHAPE = (64, 64, 3)


def parameters(state: State) -> int:
    statistics = ("running_mean", "running_var", "num_batches_tracked", "std")
    return sum(value.numel() for name, value in state.items() if not name.endswith(statistics))


def normal(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def wide(state: State) -> State:
    return {name: value.double() if value.is_floating_point() else value for name, value in state.items()}


@pytest.mark.parametrize(
    ("model_id", "count", "ours"),
    [
        ("genesis-v2", 2_366_798 + 362_624, 0),
        ("sri", 3_634_450, 0),
        ("genesis", 12_620_548, -896),  # biases that batch normalisation takes away again
        ("emorl", 666_502, -2),  # their GECO's state is a parameter
    ],
)
def test_published_state_dict_is_the_whole_model(
    published: SimpleNamespace, model_id: str, count: int, ours: int, tmp_path: Path
) -> None:
    theirs = getattr(published, model_id.replace("-", "_"))()
    assert parameters(theirs) == count
    key = "model" if model_id == "emorl" else "model_state_dict"
    prefix = "module." if model_id == "emorl" else ""  # what data-parallel training saves
    path = published.saved(
        tmp_path / "theirs.pt", {prefix + name: value for name, value in theirs.items()}, key
    )
    model = import_weights(model_id, path, SHAPE).model
    assert sum(p.numel() for p in model.parameters()) == count + ours
    left = np.sort(torch.cat([p.detach().flatten() for p in model.parameters()]).numpy())
    ignored = ("geco_", "std")
    biases = re.compile(r"att_process\.core\.(q_z_nn\.[0-4]|p_x_nn\.[1-5])\.conv\.bias")
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    kept = [
        value.flatten()
        for name, value in theirs.items()
        if not (name.startswith(ignored) or name.endswith(statistics) or biases.fullmatch(name))
    ]
    assert np.array_equal(left, np.sort(torch.cat(kept).numpy()))  # each number of theirs once, and no other


def test_lstm_prior_computes_what_theirs_does(published: SimpleNamespace, small_v2: Path) -> None:
    model = import_weights("genesis-v2", small_v2, SHAPE, SMALL_V2).model.double()
    assert isinstance(model, GenesisV2)
    assert model.prior is not None
    state = wide(published.genesis_v2(8))
    lstm = nn.LSTM(8, 32, batch_first=True).double()
    lstm.load_state_dict(
        {name.removeprefix("prior_lstm."): t for name, t in state.items() if "prior_lstm" in name}
    )
    z = normal(2, 4, 8)
    loc, raw = linear(lstm(z)[0], state["prior_linear.weight"], state["prior_linear.bias"]).chunk(2, dim=-1)
    p = model.prior(z).base_dist
    torch.testing.assert_close(p.loc[:, 1:], loc[:, :-1].tanh())
    torch.testing.assert_close(p.scale[:, 1:], torch.sigmoid(raw[:, :-1] + 4) + 1e-4)


def test_slot_features_are_a_convolution_of_one_pixel(published: SimpleNamespace, small_v2: Path) -> None:
    model = import_weights("genesis-v2", small_v2, SHAPE, SMALL_V2).model.double()
    assert isinstance(model, GenesisV2)
    state = wide(published.genesis_v2(8))
    features, masks = normal(1, 8, 4, 4), normal(1, 3, 4, 4, seed=4).softmax(1)
    mapped = conv2d(features, state["feat_head.1.weight"], state["feat_head.1.bias"])  # [1, 16, 4, 4]
    expected = (masks[:, :, None] * mapped[:, None]).sum((3, 4)) / (masks.sum((2, 3))[..., None] + 1e-5)
    torch.testing.assert_close(model.encoder.pool(features, masks.log()), expected)


def test_scene_encoder_and_priors_of_sri(published: SimpleNamespace, tmp_path: Path) -> None:
    settings = {"slot_size": 8, "width": 8, "lstm_size": 32}
    model = import_weights(
        "sri", published.saved(tmp_path / "sri.pt", published.sri(8)), SHAPE, settings
    ).model.double()
    assert isinstance(model, SRI)
    assert model.scene_encoder is not None
    state = wide(published.sri(8))

    def layer(name: str, x: Tensor) -> Tensor:
        return linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))

    x = slots = normal(2, 3, 8)
    for i in range(3):
        block = f"scene_encoder.blocks.{i}"
        own = x[:, :, None].expand(-1, -1, 3, -1)
        pairs = torch.cat([own, own - x[:, None]], dim=-1)
        v = layer(f"{block}.relational_v.2", gelu(layer(f"{block}.relational_v.0", pairs)))
        attention = (layer(f"{block}.q", x) @ layer(f"{block}.k", x).mT / 8**0.5).softmax(-1)
        norm = state[f"{block}.norm_pre_ff.weight"], state[f"{block}.norm_pre_ff.bias"]
        hidden = layer_norm(x + (attention[..., None] * v).sum(2), (8,), *norm)
        x = x + layer(f"{block}.mlp.2", gelu(layer(f"{block}.mlp.0", hidden)))
    pooled = gelu(layer("scene_encoder.project_to_scene_dim.0", x.sum(1)))
    torch.testing.assert_close(model.scene_encoder(slots).mean, layer("scene_encoder.mu_s", pooled))

    scene = normal(2, 128)
    lstm = nn.LSTM(8, 32, batch_first=True).double()
    lstm.load_state_dict(
        {name.removeprefix("prior_lstm.lstm."): t for name, t in state.items() if "prior_lstm.lstm" in name}
    )
    first = gelu(layer("prior_lstm.token_encoder.0", scene))
    hidden = lstm(torch.cat([first[:, None], slots[:, :-1]], dim=1))[0]
    variance = nn.functional.softplus(layer("prior_lstm.sp", hidden)) + 1e-5
    p = model.prior(slots, scene)
    torch.testing.assert_close(p.mean, layer("prior_lstm.mu", hidden))
    torch.testing.assert_close(p.base_dist.scale, variance.sqrt())


def test_gated_convolutions_and_attention_of_genesis(published: SimpleNamespace, tmp_path: Path) -> None:
    path = published.saved(tmp_path / "genesis.pt", published.genesis(4, grid=4))
    model = import_weights("genesis", path, (16, 16, 3), {"width": 4}).model.double()
    assert isinstance(model, Genesis)
    state = wide(published.genesis(4, grid=4))

    def gated(name: str, x: Tensor, stride: int, up: bool) -> Tensor:
        weight, bias = state[f"{name}.conv.weight"], state[f"{name}.conv.bias"]
        kernel = weight.shape[-1]
        padding = 2 if kernel == 5 else 0
        if up:
            more = {"output_padding": stride - 1} if stride > 1 else {}
            x = nn.functional.conv_transpose2d(x, weight, bias, stride, padding, **more)
        else:
            x = conv2d(x, weight, bias, stride, padding)
        halves = []
        for half, norm in zip(x.chunk(2, dim=1), ("h_norm", "g_norm"), strict=True):
            learnt = [
                state.get(f"{name}.{norm}.{part}")
                for part in ("running_mean", "running_var", "weight", "bias")
            ]
            halves.append(half if learnt[0] is None else batch_norm(half, *learnt))  # type: ignore[arg-type]
        return halves[0] * halves[1].sigmoid()

    core, strides = "att_process.core", (1, 2, 1, 2, 1)
    x = images = normal(2, 3, 16, 16).sigmoid()
    for i, stride in enumerate(strides):
        x = gated(f"{core}.q_z_nn.{i}", x, stride, up=False)
    h = gated(f"{core}.q_z_nn.5", x, 1, up=False).flatten(1)
    torch.testing.assert_close(model.read(images), h)

    def layer(name: str, x: Tensor) -> Tensor:
        return linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    q, z = model.attend(h, torch.zeros(2, 3, 64, dtype=torch.float64))
    torch.testing.assert_close(z[:, 0], layer(f"{core}.q_z_mean", h))
    raw = layer(f"{core}.q_z_var.0", h)
    torch.testing.assert_close(q.base_dist.scale[:, 0], nn.functional.softplus(raw + 0.5) + 1e-8)
    lstm = nn.LSTM(320, 128, batch_first=True).double()
    lstm.load_state_dict(
        {name.removeprefix("att_process.lstm."): t for name, t in state.items() if "att_process.lstm" in name}
    )
    seen = torch.cat([h[:, None].expand(-1, 2, -1), z[:, :2]], dim=-1)
    torch.testing.assert_close(z[:, 1:], layer("att_process.linear", lstm(seen)[0])[..., :64])

    x = z[:, 0, :, None, None]
    for i, stride in enumerate((1, *strides)):
        x = gated(f"{core}.p_x_nn.{i}", x, stride, up=True)
    logits = conv2d(x, state[f"{core}.p_x_mean.weight"], state[f"{core}.p_x_mean.bias"])
    torch.testing.assert_close(model.mask_logits(z[:, 0]), logits)


def test_units_and_positions_of_emorl(published: SimpleNamespace, tmp_path: Path) -> None:
    model = import_weights(
        "emorl",
        published.saved(tmp_path / "emorl.pt", published.emorl(8), "model"),
        (12, 12, 3),
        {"slot_size": 8},
    ).model
    assert isinstance(model.double(), EfficientMORL)
    state = wide(published.emorl(8))
    cell = "hvae_networks.gru.cell"
    update, means, scales = normal(2, 3, 8), normal(2, 3, 8, seed=4), normal(2, 3, 8, seed=5)
    expected = []
    for unit, h in ((1, means), (2, scales)):
        part = slice((unit - 1) * 16, unit * 16)
        gates = linear(update, state[f"{cell}.weight_ih_{unit}"], state[f"{cell}.bias_ih"][part])
        gates = gates + linear(h, state[f"{cell}.weight_hh_{unit}"], state[f"{cell}.bias_hh"][part])
        reset, keep = gates.sigmoid().chunk(2, dim=-1)
        part = slice((unit - 1) * 8, unit * 8)
        new = linear(h, state[f"{cell}.weight_hn_{unit}"], state[f"{cell}.bias_hn"][part])
        new = linear(update, state[f"{cell}.weight_in_{unit}"], state[f"{cell}.bias_in"][part]) + reset * new
        expected.append((1 - keep) * new.tanh() + keep * h)
    torch.testing.assert_close(
        model.hierarchy.update(update, torch.cat([means, scales], dim=-1)), torch.cat(expected, dim=-1)
    )
    # Their positions fall and rise along the first axis of the map, then rise and fall along the second.
    rise = torch.linspace(0, 1, 12, dtype=torch.float64)
    rows, columns = rise[:, None].expand(12, 12), rise.expand(12, 12)
    positions = torch.stack([1 - rows, rows, columns, 1 - columns], dim=-1).reshape(144, 4)
    projection = "hvae_networks.pos_embed_projection"
    theirs = linear(positions, state[f"{projection}.weight"], state[f"{projection}.bias"])
    torch.testing.assert_close(
        model.encoder.project(model.encoder.positions)[0], theirs, rtol=1e-5, atol=1e-6
    )


def test_older_name_of_emorls_networks_is_read(published: SimpleNamespace, tmp_path: Path) -> None:
    state = {
        name.replace("hvae_networks", "object_discovery_block"): t for name, t in published.emorl(8).items()
    }
    path = published.saved(tmp_path / "old.pt", state, "model")
    assert import_weights("emorl", path, (12, 12, 3), {"slot_size": 8}).step == 0
