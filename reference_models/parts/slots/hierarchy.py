"""EfficientMORL's hierarchical posterior over slots, and the priors of its layers (Emami et al. 2021, sec. 3).

Each layer is a round of Slot Attention that hands on a distribution instead of a vector: pixels choose among the
slots, what a slot is given updates mean and scale of its latent, and a sample of it asks the next round. All
layers share their weights, and all slots begin with the same distribution, so that their order means nothing.

Letters: B images, K slots, D latent size, L layers, P pixels, F features.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Independent, kl_divergence

from reference_models.parts.nets import kl_to_standard_normal, mlp
from reference_models.parts.slots.dual_gru import DualGRU
from reference_models.parts.slots.pixel_broadcast import ramps
from reference_models.parts.slots.prior import softplus_normal

PriorKind = Literal["reversed++", "reversed", "bottom-up"]
"""How the layers' priors are chained; see `SlotPriors`."""


def sample_slots(parameters: Tensor, noise: Tensor) -> Tensor:
    """Return the sample ``[..., D]`` of ``softplus_normal(parameters)`` that belongs to standard normal ``noise``."""
    q = softplus_normal(parameters).base_dist
    return torch.addcmul(q.loc, q.scale, noise)


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return what each slot is given by the pixels that choose it (Locatello et al. 2020, algorithm 1).

    Args:
        queries: ``[B, K, D]``.
        keys: ``[B, P, D]``.
        values: ``[B, P, D]``.

    Returns:
        ``[B, K, D]``: the mean of the values, weighted by each pixel's choice among the slots.
    """
    scores = torch.bmm(queries * queries.shape[-1] ** -0.5, keys.mT)  # [B, K, P]
    chosen = scores.softmax(1) + 1e-8
    return torch.bmm(chosen / chosen.sum(-1, keepdim=True), values)


class PixelEncoder(nn.Module):
    """Features of each pixel that know where it is: convolutions at full size, then a network a pixel.

    Args:
        height: Of the images.
        width: Of the images.
        inputs: Their channels.
        channels: F, of every layer.
        layers: How many convolutions, of width 5.
    """

    positions: Tensor

    def __init__(self, height: int, width: int, inputs: int, channels: int, layers: int) -> None:
        super().__init__()
        convolutions: list[nn.Module] = []
        for layer in range(layers):
            convolutions += [nn.Conv2d(channels if layer else inputs, channels, 5, padding=2), nn.ReLU()]
        self.convolutions = nn.Sequential(*convolutions)
        self.register_buffer("positions", ramps(height, width).flatten(2).mT, persistent=False)  # [1, P, 4]
        self.project = nn.Linear(4, channels)
        self.read = nn.Sequential(nn.LayerNorm(channels), *mlp(channels, [channels], channels))

    def forward(self, images: Tensor) -> Tensor:
        """Return features ``[B, P, F]`` of ``images [B, C, H, W]`` in [-1, 1]."""
        pixels = self.convolutions(images).flatten(2).mT  # [B, P, F]
        features: Tensor = self.read(pixels + self.project(self.positions))
        return features


class Layers(NamedTuple):
    """The posterior's layers, first to last."""

    parameters: list[Tensor]  # L of [B, K, 2 D]
    z: list[Tensor]  # L of [B, K, D], their samples

    def with_leaf(self, noise: Tensor) -> Layers:
        """Return the layers without their past: the last one's parameters alone ask for gradients.

        Args:
            noise: As `SlotHierarchy` was given it.
        """
        *parameters, last = (each.detach() for each in self.parameters)
        last.requires_grad_()
        return Layers(
            [*parameters, last], [*(z.detach() for z in self.z[:-1]), sample_slots(last, noise[:, -1])]
        )


class SlotHierarchy(nn.Module):
    """q(z^1, ..., z^L | x).

    Args:
        features: F, of a pixel.
        size: D.
        layers: L.
        gru_sd: See `DualGRU`.
    """

    def __init__(self, features: int, size: int, layers: int, gru_sd: float | None) -> None:
        super().__init__()
        self.layers = layers
        self.first = nn.Parameter(torch.cat([torch.zeros(size), torch.ones(size)]))
        self.ask = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, size, bias=False))
        self.keys = nn.Linear(features, size, bias=False)
        self.values = nn.Linear(features, size, bias=False)
        self.update = DualGRU(size, size, gru_sd)
        self.adjust_mean = nn.Sequential(nn.LayerNorm(size), *mlp(size, [2 * size], size))
        self.adjust_scale = nn.Sequential(nn.LayerNorm(size), *mlp(size, [2 * size], size))

    def forward(self, features: Tensor, noise: Tensor) -> Layers:
        """Infer all layers.

        Args:
            features: ``[B, P, F]``.
            noise: Standard normal ``[B, 1 + L, K, D]``: that of the slots' beginning, then one a layer.
        """
        keys, values = self.keys(features), self.values(features)
        before, *noises = noise.unbind(1)
        parameters = self.first.expand(*before.shape[:2], -1)  # [B, K, 2 D], alike for all
        z = sample_slots(parameters, before)
        result = Layers([], [])
        for layer_noise in noises:
            parameters = self.update(attend(self.ask(z), keys, values), parameters)
            mean, raw_scale = parameters.chunk(2, dim=-1)
            parameters = torch.cat(
                [mean + self.adjust_mean(mean), raw_scale + self.adjust_scale(raw_scale)], dim=-1
            )
            z = sample_slots(parameters, layer_noise)
            result.parameters.append(parameters)
            result.z.append(z)
        return result


class SlotPriors(nn.Module):
    """The priors of the layers; slots are independent of each other.

    One end of the chain is a standard normal: the last layer (``reversed``) or the first (``bottom-up``). A
    network, the same at each link, gives the others their prior from their neighbour's latent. ``reversed++``
    compares refined posteriors with the end of the chain, p(z^1 | z^2), instead of a standard normal.

    Args:
        size: D.
        hidden: Of the network.
        kind: How the layers are chained.
        layers: L; a single one has no links.
    """

    def __init__(self, size: int, hidden: int, kind: PriorKind, layers: int) -> None:
        super().__init__()
        self.kind = kind
        self.link = mlp(size, [hidden], 2 * size, nn.ELU) if layers > 1 else None

    def kl(self, layers: Layers) -> Tensor:
        """Return the divergence of each layer from its prior in nats, summed over slots: ``[B, L]``."""
        last = len(layers.z) - 1
        end, step = (0, -1) if self.kind == "bottom-up" else (last, 1)
        each = []
        for layer, parameters in enumerate(layers.parameters):
            q = softplus_normal(parameters)
            kl = (
                kl_to_standard_normal(q)
                if layer == end
                else kl_divergence(q, self.given(layers.z[layer + step]))
            )
            each.append(kl.sum(1))
        return torch.stack(each, dim=1)

    def cost(self, layers: Layers) -> Tensor:
        """Return what each layer costs in a bound on the evidence, in nats, summed over slots: ``[B, L]``.

        A prior that looks at the *next* layer's sample, which was drawn after this one's, moves with what it is
        compared with: there `kl`, which training takes as the code does, is no part of a bound, and log q - log p at
        the samples is.
        """
        kls = self.kl(layers)
        if self.kind == "bottom-up":
            return kls
        ratios = []
        for z, parameters, above in zip(layers.z[:-1], layers.parameters[:-1], layers.z[1:], strict=True):
            ratio = softplus_normal(parameters).log_prob(z) - self.given(above).log_prob(z)
            ratios.append(ratio.sum(1))
        return torch.stack([*ratios, kls[:, -1]], dim=1)

    def given(self, neighbour: Tensor) -> Independent:
        """Return the prior of a layer's latents given its neighbour's, ``[B, K, D]``."""
        assert self.link is not None
        return softplus_normal(self.link(neighbour).to(neighbour.dtype))  # not in half precision

    def of_refined(self, layers: Layers) -> Independent | None:
        """Return the prior of refined latents; ``None`` for the standard normal."""
        return self.given(layers.z[1]) if self.kind == "reversed++" and len(layers.z) > 1 else None

    def sample(self, noise: Tensor, links: int) -> Tensor:
        """Follow the chain from its standard normal end.

        Args:
            noise: Standard normal ``[n, 1 + links, K, D]``, or with another standard deviation than 1.
            links: How many links to follow.

        Returns:
            ``[n, K, D]``.
        """
        z, *others = noise.unbind(1)
        for link in range(links):
            p = self.given(z).base_dist
            z = torch.addcmul(p.loc, p.scale, others[link])
        return z
