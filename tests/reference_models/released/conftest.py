"""State dicts with the names and shapes that authors published, read off their public code; random values."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

State = dict[str, Tensor]


class Names:
    """Collects tensors by name, with random values."""

    def __init__(self, seed: int = 0) -> None:
        self.state: State = OrderedDict()
        self._generator = torch.Generator().manual_seed(seed)

    def add(self, name: str, *shape: int) -> None:
        self.state[name] = 0.1 * torch.randn(shape, generator=self._generator)

    def layer(self, name: str, *shape: int, outputs: int | None = None) -> None:
        self.add(f"{name}.weight", *shape)
        self.add(f"{name}.bias", shape[0] if outputs is None else outputs)

    def norm(self, name: str, size: int) -> None:
        self.layer(name, size)

    def conv_norm(self, name: str, size_in: int, size_out: int) -> None:
        self.add(f"{name}.0.weight", size_out, size_in, 3, 3)
        self.norm(f"{name}.1", size_out)

    def rnn(self, name: str, inputs: int, size: int, gates: int = 4) -> None:
        for what, columns in (("ih", inputs), ("hh", size)):
            self.add(f"{name}.weight_{what}_l0", gates * size, columns)
        for what in ("ih", "hh"):
            self.add(f"{name}.bias_{what}_l0", gates * size)

    def batch_norm(self, name: str, size: int) -> None:
        self.norm(name, size)
        self.add(f"{name}.running_mean", size)
        self.state[f"{name}.running_var"] = torch.rand(size, generator=self._generator) + 0.5
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(7)


def broadcast_decoder(names: Names, prefix: str, d: int) -> None:
    for index, size_in in ((1, d + 2), (4, d), (7, d), (10, d)):
        names.layer(f"{prefix}.{index}", size_in, d, 5, 5, outputs=d)
        names.norm(f"{prefix}.{index + 1}", d)
    names.layer(f"{prefix}.13", 4, d, 1, 1)


def colouring_vae(names: Names, prefix: str, d: int) -> None:
    """GENESIS-v2 without its prior, at 64 x 64 pixels."""
    c, grid = d, 4
    sizes = [3, c, c, 2 * c, 2 * c, 2 * c]
    for i in range(5):
        names.conv_norm(f"{prefix}encoder.down.{i}", sizes[i], sizes[i + 1])
    for i, (size_in, size_out) in enumerate([(4, 2), (4, 2), (4, 1), (2, 1), (2, 1)]):
        names.conv_norm(f"{prefix}encoder.up.{i}", size_in * c, size_out * c)
    for index, size_out, size_in in ((1, 128, 2 * c * grid**2), (3, 128, 128), (5, 2 * c * grid**2, 128)):
        names.layer(f"{prefix}encoder.mlp.{index}", size_out, size_in)
    names.add(f"{prefix}att_process.log_sigma")
    names.layer(f"{prefix}att_process.colour_head.conv", 8, d, 1, 1)
    names.add(f"{prefix}att_process.colour_head.gate.gate")
    names.conv_norm(f"{prefix}seg_head", d, d)
    names.conv_norm(f"{prefix}feat_head.0", d, d)
    names.layer(f"{prefix}feat_head.1", 2 * d, d, 1, 1)
    names.norm(f"{prefix}z_head.0", 2 * d)
    names.layer(f"{prefix}z_head.1", 2 * d, 2 * d)
    names.layer(f"{prefix}z_head.3", 2 * d, 2 * d)
    broadcast_decoder(names, f"{prefix}decoder_module", d)


def genesis_v2(d: int = 64) -> State:
    names = Names()
    colouring_vae(names, "", d)
    names.rnn("prior_lstm", d, 4 * d)
    names.layer("prior_linear", 2 * d, 4 * d)
    return names.state


def sri(d: int = 64) -> State:
    names = Names()
    colouring_vae(names, "genesisv2.", d)
    for i in range(3):
        block = f"scene_encoder.blocks.{i}"
        names.add(f"{block}.k.weight", d, d)
        names.add(f"{block}.q.weight", d, d)
        names.layer(f"{block}.relational_v.0", d, 2 * d)
        names.layer(f"{block}.relational_v.2", d, d)
        names.norm(f"{block}.norm_pre_ff", d)
        names.layer(f"{block}.mlp.0", d, d)
        names.layer(f"{block}.mlp.2", d, d)
    names.layer("scene_encoder.project_to_scene_dim.0", 128, d)
    names.layer("scene_encoder.mu_s", 128, 128)
    names.layer("scene_encoder.sp_s", 128, 128)
    for part in ("prior_lstm", "posterior_lstm"):
        names.layer(f"{part}.token_encoder.0", d, 128)
        names.rnn(f"{part}.lstm", d, 4 * d)
        names.layer(f"{part}.sp", d, 4 * d)
    names.layer("prior_lstm.mu", d, 4 * d)
    broadcast_decoder(names, "decoder", d)
    return names.state


def genesis(w: int = 32, grid: int = 16) -> State:
    """GENESIS at ``4 grid`` pixels; 32 and 16 are the published sizes."""
    names, core = Names(), "att_process.core"
    sizes = [3, w, w, 2 * w, 2 * w, 2 * w]
    for i in range(5):
        names.layer(f"{core}.q_z_nn.{i}.conv", 2 * sizes[i + 1], sizes[i], 5, 5)
        names.batch_norm(f"{core}.q_z_nn.{i}.h_norm", sizes[i + 1])
        names.batch_norm(f"{core}.q_z_nn.{i}.g_norm", sizes[i + 1])
    names.layer(f"{core}.q_z_nn.5.conv", 512, 2 * w, grid, grid)
    names.layer(f"{core}.q_z_mean", 64, 256)
    names.layer(f"{core}.q_z_var.0", 64, 256)
    sizes = [64, 2 * w, 2 * w, w, w, w, w]
    names.layer(f"{core}.p_x_nn.0.conv", 64, 4 * w, grid, grid, outputs=4 * w)
    for i in range(1, 6):
        names.layer(f"{core}.p_x_nn.{i}.conv", sizes[i], 2 * sizes[i + 1], 5, 5, outputs=2 * sizes[i + 1])
        names.batch_norm(f"{core}.p_x_nn.{i}.h_norm", sizes[i + 1])
        names.batch_norm(f"{core}.p_x_nn.{i}.g_norm", sizes[i + 1])
    names.layer(f"{core}.p_x_mean", 1, w, 1, 1)
    names.rnn("att_process.lstm", 320, 128)
    names.layer("att_process.linear", 128, 128)
    for i, size_in, size_out in ((0, 4, w), (2, w, w), (4, w, 2 * w), (6, 2 * w, 2 * w)):
        names.layer(f"comp_vae.encoder_module.module.{i}", size_out, size_in, 3, 3)
    names.layer("comp_vae.encoder_module.module.9", 256, 2 * w * (grid // 4) ** 2)
    names.layer("comp_vae.encoder_module.module.11", 32, 256)
    for i, size_in in ((1, 18), (3, w), (5, w), (7, w)):
        names.layer(f"comp_vae.decoder_module.seq.{i}", w, size_in, 3, 3)
    names.layer("comp_vae.decoder_module.seq.9", 3, w, 1, 1)
    names.rnn("prior_lstm", 64, 256)
    names.layer("prior_linear", 128, 256)
    for i, size_out, size_in in ((0, 256, 64), (2, 256, 256), (4, 32, 256)):
        names.layer(f"prior_mlp.{i}", size_out, size_in)
    names.add("std", 1, 1, 1, 1, 5)
    return names.state


def emorl(d: int = 64) -> State:
    names, net = Names(), "hvae_networks"
    names.layer(f"{net}.pos_embed_projection", 64, 4)
    for i, size_in in ((0, 3), (2, 64), (4, 64), (6, 64)):
        names.layer(f"{net}.encoder_pt_1.{i}", 64, size_in, 5, 5)
    names.norm(f"{net}.encoder_pt_2.0", 64)
    names.layer(f"{net}.encoder_pt_2.1", 64, 64)
    names.layer(f"{net}.encoder_pt_2.3", 64, 64)
    for norm in ("norm_slots", "norm_mu_pre_ff", "norm_softplus_pre_ff"):
        names.norm(f"{net}.{norm}", d)
    for name, size_in in (("to_q", d), ("to_k", 64), ("to_v", 64)):
        names.add(f"{net}.{name}.weight", d, size_in)
    for name in ("weight_ih", "weight_hh"):
        for unit in (1, 2):
            names.add(f"{net}.gru.cell.{name}_{unit}", 2 * d, d)
            names.add(f"{net}.gru.cell.{name[:-1]}n_{unit}", d, d)
    for name, size in (("bias_ih", 4 * d), ("bias_hh", 4 * d), ("bias_in", 2 * d), ("bias_hn", 2 * d)):
        names.add(f"{net}.gru.cell.{name}", size)
    for name in ("mlp_mu", "mlp_softplus"):
        names.layer(f"{net}.{name}.0", 2 * d, d)
        names.layer(f"{net}.{name}.2", d, 2 * d)
    names.layer(f"{net}.image_decoder.pos_embed_projection", d, 4)
    for i, size_out in ((0, 64), (2, 64), (4, 64), (6, 64), (8, 4)):
        names.layer(f"{net}.image_decoder.decode.{i}", size_out, 64 if i else d, 3, 3)
    names.add(f"{net}.init_posterior", 1, 2 * d)
    names.layer(f"{net}.indep_prior.z_linear.0", 128, d)
    names.layer(f"{net}.indep_prior.z_mu", d, 128)
    names.layer(f"{net}.indep_prior.z_softplus", d, 128)
    names.rnn("refinenet.recurrence", d, d, gates=3)
    names.layer("refinenet.encoding.0", 128, 4 * d)
    names.layer("refinenet.encoding.2", d, 128)
    names.layer("refinenet.loc", d, d)
    names.layer("refinenet.softplus", d, d)
    names.add("geco_C_ema")
    names.add("geco_beta")
    return names.state


def saved(path: Path, state: State, key: str = "model_state_dict") -> Path:
    torch.save({"iter_idx": 5, key: state, "beta": torch.tensor(0.5)}, path)
    return path


@pytest.fixture
def published() -> SimpleNamespace:
    """Functions that make the state dicts, by model, and ``saved(path, state, key)``, which writes one."""
    return SimpleNamespace(genesis=genesis, genesis_v2=genesis_v2, sri=sri, emorl=emorl, saved=saved)


@pytest.fixture
def small_v2(tmp_path: Path) -> Path:
    """A file with a GENESIS-v2 of 8 channels."""
    return saved(tmp_path / "small.pt", genesis_v2(8))
