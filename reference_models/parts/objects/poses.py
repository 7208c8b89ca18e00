"""Where SuPAIR's objects may be: uniform over widths, heights and places (Stelzner et al. 2019, sec. 3.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from reference_models.parts.objects.rectangles import Rectangles

POSE = 4
"""Numbers of a pose: width, height, left, top; in pixels."""

SMALLEST_SIDE = 1.0
"""Of a rectangle in pixels: a normal posterior goes below 0."""


@dataclass(frozen=True)
class PosePrior:
    """The range of poses, over which they are uniform.

    Attributes:
        height: Of the image, in pixels.
        width: Of the image.
        side_range: Least and largest width, as parts of the image's shorter side.
        aspect_range: Least and largest height over width.
        reach: Part of the image's sides up to which the top left corner may lie.
    """

    height: int
    width: int
    side_range: tuple[float, float]
    aspect_range: tuple[float, float]
    reach: float

    @property
    def log_volume(self) -> float:
        """The log of the volume of the range, in pixels to the fourth."""
        low, high = (side * min(self.height, self.width) for side in self.side_range)
        sides = (high**2 - low**2) / 2 * (self.aspect_range[1] - self.aspect_range[0])
        return math.log(sides * self.reach**2 * self.height * self.width)

    def spread(self, unit: Tensor) -> Tensor:
        """Map numbers in [0, 1] for side, aspect, x and y, ``[..., 4]``, to poses in the range."""
        side, aspect, x, y = unit.unbind(-1)
        (short, long), (flat, tall) = self.side_range, self.aspect_range
        wide = (short + (long - short) * side) * min(self.height, self.width)
        high = (flat + (tall - flat) * aspect) * wide
        return torch.stack(
            [wide, high, x * (self.reach * self.width), y * (self.reach * self.height)], dim=-1
        )

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw poses ``[*shape, 4]``, on the generator's device."""
        unit = torch.rand(*shape, POSE, generator=generator, device=generator.device)
        # Uniform over widths and heights: heights have a range that grows with the width.
        low, high = self.side_range
        side = ((unit[..., :1] * (high**2 - low**2) + low**2).sqrt() - low) / (high - low)
        return self.spread(torch.cat([side, unit[..., 1:]], dim=-1))


def rectangles_of(poses: Tensor) -> Rectangles:
    """Return the rectangles of poses ``[B, K, 4]``."""
    wide_high, left_top = poses.split(2, dim=-1)
    return Rectangles(left_top.flip(-1), wide_high.flip(-1).clamp(min=SMALLEST_SIDE))
