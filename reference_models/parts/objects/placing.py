"""How z_where, standard normal a priori, says where a square window lies.

Letters: ``...`` any batch axes; ``z_where [..., 3]`` is scale, x, y.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from reference_models.parts.objects.windows import Windows

WHERE = 3
"""Numbers in z_where: scale, x, y."""


class Placing(Protocol):
    """An invertible map from z_where to windows on a canvas of ``height x width`` pixels."""

    def windows(self, z_where: Tensor, height: int, width: int) -> Windows:
        """Return the windows of ``z_where [..., 3]``."""
        ...

    def z_where(self, windows: Windows, height: int, width: int) -> Tensor:
        """Return the ``z_where [..., 3]`` of windows; the inverse of `windows`."""
        ...


@dataclass(frozen=True)
class LogNormalScale:
    """Log-normal sides and normal centres, which may lie beyond the canvas.

    Attributes:
        scale: Median side over the shorter side of the canvas.
        scale_sd: Of the log of the side.
        position_sd: Of the centre; the canvas reaches from -1 to 1.
    """

    scale: float
    scale_sd: float
    position_sd: float

    def windows(self, z_where: Tensor, height: int, width: int) -> Windows:
        """See `Placing`."""
        scale, x, y = z_where.unbind(-1)
        return Windows(
            x=x * (self.position_sd * width / 2) + width / 2,
            y=y * (self.position_sd * height / 2) + height / 2,
            side=torch.exp(self.scale_sd * scale) * (self.scale * min(height, width)),
        )

    def z_where(self, windows: Windows, height: int, width: int) -> Tensor:
        """See `Placing`."""
        scale = torch.log(windows.side / (self.scale * min(height, width))) / self.scale_sd
        x = (windows.x / (width / 2) - 1) / self.position_sd
        y = (windows.y / (height / 2) - 1) / self.position_sd
        return torch.stack([scale, x, y], dim=-1)


@dataclass(frozen=True)
class Squashed:
    """Sides and centres squashed to the canvas by a sigmoid and by tanh, as in AIR-ASR's released code.

    Attributes:
        scale: Median side over the shorter side of the canvas, below 1.
        scale_sd: Of the logit of that ratio.
        position_sd: Of the centre before tanh.
    """

    scale: float
    scale_sd: float
    position_sd: float

    def windows(self, z_where: Tensor, height: int, width: int) -> Windows:
        """See `Placing`."""
        scale, x, y = z_where.unbind(-1)
        ratio = torch.sigmoid(self.scale_sd * scale + math.log(self.scale / (1 - self.scale)))
        return Windows(
            x=(torch.tanh(self.position_sd * x) + 1) * (width / 2),
            y=(torch.tanh(self.position_sd * y) + 1) * (height / 2),
            side=ratio * min(height, width),
        )

    def z_where(self, windows: Windows, height: int, width: int) -> Tensor:
        """See `Placing`."""
        ratio = windows.side / min(height, width)
        scale = (torch.logit(ratio) - math.log(self.scale / (1 - self.scale))) / self.scale_sd
        x = torch.atanh(windows.x / (width / 2) - 1) / self.position_sd
        y = torch.atanh(windows.y / (height / 2) - 1) / self.position_sd
        return torch.stack([scale, x, y], dim=-1)
