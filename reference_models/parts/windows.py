"""Square windows on a canvas: read what is in them, write into them, differentiably.

This is the spatial transformer of Jaderberg et al. 2015 (bilinear, zeros outside) for boxes that are not
rotated. There the two axes separate: reading is ``Y X^T`` with one small interpolation matrix an axis, and
two matrix products replace a gather whose gradient would be a scatter.

Letters: ``...`` any batch axes, C channels, H W canvas, S window side in samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class Windows:
    """Where square windows lie on a canvas, in pixels; the origin is the canvas's top left corner.

    Attributes:
        x: Centres, float ``[...]``.
        y: Centres, float ``[...]``.
        side: Sides, float ``[...]``, positive.
    """

    x: Tensor
    y: Tensor
    side: Tensor

    @classmethod
    def from_boxes(cls, boxes: Tensor) -> Windows:
        """Return the windows of square ``boxes [..., 4]`` (``x0 y0 x1 y1``)."""
        x0, y0, x1, y1 = boxes.unbind(-1)
        return cls(x=(x0 + x1) / 2, y=(y0 + y1) / 2, side=x1 - x0)

    def boxes(self) -> Tensor:
        """Return ``x0 y0 x1 y1`` in pixels as ``[..., 4]``."""
        half = self.side / 2
        return torch.stack([self.x - half, self.y - half, self.x + half, self.y + half], dim=-1)

    def crop(self, images: Tensor, size: int) -> Tensor:
        """Read ``size x size`` samples of each window from ``images [..., C, H, W]``.

        Returns:
            ``[..., C, size, size]``; zero outside the canvas.
        """
        height, width = images.shape[-2:]
        rows = interpolation(self._samples(self.y, size), height)  # [..., S, H]
        columns = interpolation(self._samples(self.x, size), width)  # [..., S, W]
        return rows.unsqueeze(-3) @ images @ columns.unsqueeze(-3).mT

    def paste(self, glimpses: Tensor, height: int, width: int) -> Tensor:
        """Write ``glimpses [..., C, S, S]`` onto empty canvases.

        Returns:
            ``[..., C, height, width]``; zero outside the window.
        """
        size = glimpses.shape[-1]
        rows = interpolation(self._positions(self.y, height, size), size)  # [..., H, S]
        columns = interpolation(self._positions(self.x, width, size), size)  # [..., W, S]
        return rows.unsqueeze(-3) @ glimpses @ columns.unsqueeze(-3).mT

    def _samples(self, centre: Tensor, size: int) -> Tensor:
        """Return where the window's samples lie, in canvas pixel indices: ``[..., size]``."""
        unit = (torch.arange(size, device=centre.device, dtype=centre.dtype) + 0.5) / size - 0.5
        return torch.addcmul(centre[..., None] - 0.5, self.side[..., None], unit)

    def _positions(self, centre: Tensor, length: int, size: int) -> Tensor:
        """Return where the canvas's pixels lie, in window sample indices: ``[..., length]``."""
        pixel = torch.arange(length, device=centre.device, dtype=centre.dtype) + 0.5
        return (pixel - centre[..., None]) * (size / self.side[..., None]) + (size - 1) / 2


def interpolation(positions: Tensor, size: int) -> Tensor:
    """Return the matrices that interpolate linearly at ``positions [..., n]`` between ``size`` samples.

    Returns:
        ``[..., n, size]``; sample i has index i, and everything beyond the ends is zero.
    """
    weights: Tensor = _Interpolation.apply(positions, size)
    return weights


class _Interpolation(torch.autograd.Function):
    """The weights ``max(0, 1 - |position - sample|)``, whose gradient takes two reads instead of the matrix."""

    @staticmethod
    def forward(ctx: Any, positions: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(positions)
        samples = torch.arange(size, device=positions.device, dtype=positions.dtype)
        return (positions[..., None] - samples).abs_().neg_().add_(1).clamp_(min=0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (positions,) = ctx.saved_tensors
        gradient = pad(gradients[0], (2, 2))  # [..., n, size + 4]; zero beyond the ends
        below = positions.floor().long().clamp(-2, gradient.shape[-1] - 4)[..., None] + 2
        # A position has weight on the samples around it alone: moving it up takes from one, gives to the other.
        return (gradient.gather(-1, below + 1) - gradient.gather(-1, below)).squeeze(-1), None
