"""A background without parameters, to see what a learned one is worth (SuPAIR's ablation, fig. 5)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class BlackBackground(nn.Module):
    """Independent normal pixels around black; it answers what a `SumProductNetwork` answers.

    Args:
        pixels: Of an image.
        channels: Of a pixel; ``D = pixels * channels``.
        sd: Standard deviation of a value in [0, 1].
    """

    def __init__(self, pixels: int, channels: int, sd: float) -> None:
        super().__init__()
        self.pixels, self.channels, self.sd = pixels, channels, sd

    def log_likelihood(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """Return log p of the visible values of ``x [B, D]`` in nats, ``[B]``; ``visible [B, pixels]`` in [0, 1]."""
        log_p = x.square() * (-0.5 / self.sd**2) - math.log(self.sd * math.sqrt(2 * math.pi))
        log_p = log_p.unflatten(-1, (self.channels, self.pixels)).sum(-2)
        return (log_p if visible is None else torch.where(visible > 0, visible * log_p, 0.0)).sum(-1)

    def mpe(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """Return black, ``[B, D]``."""
        return torch.zeros_like(x)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw ``[n, D]``."""
        noise = torch.randn(n, self.pixels * self.channels, generator=generator, device=generator.device)
        return self.sd * noise
