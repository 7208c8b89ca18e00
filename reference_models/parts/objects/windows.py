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
        unit = (torch.arange(size, device=images.device, dtype=images.dtype) + 0.5) / size - 0.5  # [S]
        # Where the window's samples lie, counted in the canvas's pixels: [..., 2, S]
        positions = torch.addcmul(self._centres() - 0.5, self.side[..., None, None], unit)
        rows, columns = interpolation(positions, max(height, width)).unbind(-3)  # [..., S, max(H, W)]
        return rows[..., None, :, :height] @ images @ columns[..., None, :, :width].mT

    def paste(self, glimpses: Tensor, height: int, width: int) -> Tensor:
        """Write ``glimpses [..., C, S, S]`` onto empty canvases.

        Returns:
            ``[..., C, height, width]``; zero outside the window.
        """
        size = glimpses.shape[-1]
        pixels = torch.arange(max(height, width), device=glimpses.device, dtype=glimpses.dtype) + 0.5
        # Where the canvas's pixels lie, counted in the window's samples: [..., 2, max(H, W)]
        positions = (pixels - self._centres()) * (size / self.side[..., None, None]) + (size - 1) / 2
        rows, columns = interpolation(positions, size).unbind(-3)  # [..., max(H, W), S]
        return rows[..., None, :height, :] @ glimpses @ columns[..., None, :width, :].mT

    def _centres(self) -> Tensor:
        """Return y and x as ``[..., 2, 1]``; both axes are interpolated in one go, the shorter one cut after."""
        return torch.stack([self.y, self.x], dim=-1)[..., None]


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
    def forward(positions: Tensor, size: int) -> Tensor:
        samples = torch.arange(size, device=positions.device, dtype=positions.dtype)
        return (positions[..., None] - samples).abs_().neg_().add_(1).relu_()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, None], positions: Tensor, size: int) -> tuple[Tensor, int]:
        return interpolation(positions.movedim(in_dims[0], 0), size), 0  # one batch axis more is all

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (positions,) = ctx.saved_tensors
        (gradient,) = gradients  # [..., n, size]
        # A position has weight on the samples around it alone: moving it up takes from one, gives to the other.
        around = positions.floor().long()[..., None] + torch.arange(2, device=positions.device)  # [..., n, 2]
        inside = around.clamp(0, gradient.shape[-1] - 1)
        return gradient.gather(-1, inside).mul_(around == inside).diff().squeeze(-1), None
