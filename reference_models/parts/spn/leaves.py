"""Gaussian leaves with bounded variance, all of them in one matrix product, pixels marginalised one by one.

The log density of a Gaussian is linear in ``x^2``, ``x`` and 1 with its natural parameters as factors. A leaf region
sums it over its pixels, weighted with how far each is visible. So the leaves of all regions of all replicas are
``[m x^2, m x, m]`` times one matrix that is zero outside of each region; no ``[B, D, I]`` is ever built. Products with
those zeros cost no more than gathering the pixels of each replica would, which moves R times the image through
memory, and its gradient again; and they take less memory.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from multiobj_data.errors import DataError
from reference_models.parts.precision import product
from reference_models.parts.spn.config import SPNConfig
from reference_models.parts.spn.regions import region_graph


class GaussianLeaves(nn.Module):
    """I Gaussians for each leaf region of each replica, with independent pixels.

    Attributes:
        region_of: Leaf region of each pixel, int64 ``[R, P]``; saved so that weights are never read with the pixels
            of another structure.
        mean: ``[R, I, D]``.
        raw_variance: ``[R, I, D]``; see `variance`.
    """

    region_of: Tensor

    def __init__(self, config: SPNConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("region_of", torch.from_numpy(region_graph(config)))
        shape = (config.replicas, config.leaves, config.values)
        self.mean, self.raw_variance = nn.Parameter(torch.empty(shape)), nn.Parameter(torch.empty(shape))
        nn.init.trunc_normal_(self.mean, std=0.1, a=-0.2, b=0.2)  # SuPAIR code
        nn.init.normal_(self.raw_variance, std=0.1)  # SuPAIR code: amid the bounds

    @property
    def variance(self) -> Tensor:
        """Variances, strictly between the bounds: ``[R, I, D]``."""
        low, high = self.config.min_variance, self.config.max_variance
        return low + (high - low) * torch.sigmoid(self.raw_variance)

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """Return the log density of each leaf.

        Args:
            x: ``[B, D]``.
            visible: In [0, 1], ``[B, P]``: 0 integrates a pixel out, between 0 and 1 its log density is scaled;
                ``None``: all are visible.

        Returns:
            Nats, ``[R, K, I, B]``.
        """
        variance, mean = self.variance, self.mean
        square, linear = -0.5 / variance, mean / variance
        constant = -0.5 * (mean * linear + (2 * math.pi * variance).log())
        x = x.to(mean.dtype)
        if visible is None:
            densities = self._over_regions([square, linear], [x.square(), x])
            return densities + (constant[:, None] * self.members()).sum(-1, keepdim=True)
        x, m = seen(x, self.of_values(visible))  # [B, D]
        weighted = m * x
        return self._over_regions([square, linear, constant], [weighted * x, weighted, m])

    def peaks(self, visible: Tensor) -> Tensor:
        """Return the largest log density that the hidden pixels can have in each leaf: nats, ``[R, K, I, B]``."""
        return self._over_regions([-0.5 * (2 * math.pi * self.variance).log()], [1 - self.of_values(visible)])

    def of_values(self, visible: Tensor) -> Tensor:
        """Return the visibility of each value, ``[B, D]``, from that of each pixel, ``[B, P]``."""
        visible = visible.to(self.mean.dtype)
        return visible if self.config.channels == 1 else visible.repeat(1, self.config.channels)

    def members(self) -> Tensor:
        """Return which values belong to which leaf region: 0 or 1, ``[R, K, 1, D]``."""
        regions = torch.arange(self.config.regions, device=self.region_of.device)
        members = self.region_of[:, None] == regions[:, None]  # [R, K, P]
        return members.repeat(1, 1, self.config.channels).to(self.mean.dtype)[:, :, None]

    def _over_regions(self, parameters: list[Tensor], features: list[Tensor]) -> Tensor:
        """Return ``sum of parameters x features`` over each region's pixels.

        Args:
            parameters: Each ``[R, I, D]``.
            features: As many, each ``[B, D]``.
        """
        members = self.members()
        sums = [
            product((parameter[:, None] * members).flatten(0, 2), feature.mT)  # [R * K * I, B]
            for parameter, feature in zip(parameters, features, strict=True)
        ]
        return torch.stack(sums).sum(0).unflatten(0, (*members.shape[:2], -1))

    def of_leaves(self, parameter: Tensor, replica: Tensor, channel: Tensor) -> Tensor:
        """Read a parameter of the leaves that a tree ends in.

        Args:
            parameter: ``[R, I, D]``.
            replica: The tree's replica, int64 ``[B]``.
            channel: Its leaf in each leaf region, int64 ``[B, K]``.

        Returns:
            One value a pixel and channel, ``[B, D]``.
        """
        chosen = channel.gather(1, self.region_of[replica]).repeat(1, self.config.channels)  # [B, D]
        values = torch.arange(self.config.values, device=chosen.device)
        return parameter[replica[:, None], chosen, values]

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}region_of")
        if saved is not None and not torch.equal(saved.cpu(), self.region_of.cpu()):
            raise DataError(
                f"SPN: these weights were trained with another region graph than that of "
                f"structure={self.config.structure!r}, seed={self.config.seed}; "
                "build the network with the settings that they were trained with."
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


def seen(x: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """Blank hidden values, NaN among them, so that neither result nor gradient can tell what they were.

    Args:
        x: ``[B, D]``.
        visible: ``[B, D]``.

    Returns:
        Both; where a value is hidden, both are 0 and neither has a gradient.
    """
    hidden = visible <= 0
    return x.masked_fill(hidden, 0), visible.masked_fill(hidden, 0)
