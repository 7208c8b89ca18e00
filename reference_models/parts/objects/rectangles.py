"""Upright rectangles on a canvas: what is in them, which pixels they cover, what is drawn in them.

As with `parts.objects.windows` both axes separate, so that reading and drawing are two small matrix products each. Here
a rectangle may have any aspect, the canvas goes on beyond its edge with the colour of the edge, and a rectangle
knows how far it covers each pixel, to hide what is behind it (SuPAIR's masks, Stelzner et al. 2019, sec. 3.2).

Letters: B images, K rectangles an image, C channels, H W canvas, A samples along a side of what is read.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reference_models.parts.objects.windows import interpolation


@dataclass(frozen=True)
class Sampling:
    """How a grid of samples in each rectangle reads the canvas.

    Attributes:
        positions: Where the rows (0) and columns (1) of samples lie, counted in pixels and moved onto the canvas
            where they are beyond it: ``[B, K, 2, A]``.
        rows: Weight of each row of pixels in each row of samples, ``[B, K, A, H]``; every row sums to 1.
        columns: The same for columns, ``[B, K, A, W]``.
        inside_rows: How far each row of samples lies on the canvas, ``[B, K, A]`` in [0, 1].
        inside_columns: The same for columns, ``[B, K, A]``.
    """

    positions: Tensor
    rows: Tensor
    columns: Tensor
    inside_rows: Tensor
    inside_columns: Tensor

    @property
    def inside(self) -> Tensor:
        """How far each sample lies on the canvas: ``[B, K, A, A]``."""
        return self.inside_rows[..., :, None] * self.inside_columns[..., None, :]

    def read(self, images: Tensor) -> Tensor:
        """Read ``images [B, C, H, W]`` at all samples: ``[B, K, C, A, A]``; beyond the edge they go on as at it."""
        b, k, a, height = self.rows.shape
        channels, width = images.shape[1], images.shape[-1]
        across = images.transpose(1, 2).reshape(b, height, channels * width)
        # One product for all rectangles of an image, since they read the same pixels: [B, K, A, C, W]
        bands = (self.rows.reshape(b, k * a, height) @ across).reshape(b, k, a, channels, width)
        return (bands.flatten(2, 3) @ self.columns.mT).unflatten(2, (a, channels)).transpose(2, 3)

    def read_profiles(self, profiles: Profiles) -> Profiles:
        """Read how far each rectangle covers the samples of each: ``rows`` and ``columns [B, K, K, A]``.

        The result at ``[:, i, j]`` says how far rectangle j covers the samples of i.
        """
        y, x = self.positions.unbind(2)
        return Profiles(_interpolate(profiles.rows, y), _interpolate(profiles.columns, x))


def _interpolate(profiles: Tensor, positions: Tensor) -> Tensor:
    """Read all profiles ``[B, K, n]`` of an image at all of its positions ``[B, K, A]``: ``[B, K, K, A]``."""
    _, k, n = profiles.shape
    low = positions.detach().floor().clamp(max=max(n - 2, 0))
    index = low.long()[:, :, None].expand(-1, -1, k, -1)
    table = profiles[:, None].expand(-1, k, -1, -1)
    ends = table.gather(-1, index), table.gather(-1, (index + 1).clamp(max=n - 1))
    return torch.lerp(*ends, (positions - low)[:, :, None])


@dataclass(frozen=True)
class Profiles:
    """How far rectangles cover each row and each column; how far a pixel is the product.

    Attributes:
        rows: ``[B, K, H]`` in [0, 1].
        columns: ``[B, K, W]`` in [0, 1].
    """

    rows: Tensor
    columns: Tensor

    @property
    def pixels(self) -> Tensor:
        """How far each pixel is covered: ``[B, K, H, W]``."""
        return self.rows[..., :, None] * self.columns[..., None, :]


@dataclass(frozen=True)
class Rectangles:
    """Where upright rectangles lie on a canvas, in pixels; the origin is the canvas's top left corner.

    Attributes:
        corner: Top and left, float ``[B, K, 2]``.
        sides: Height and width, float ``[B, K, 2]``, positive.
    """

    corner: Tensor
    sides: Tensor

    def boxes(self) -> Tensor:
        """Return ``x0 y0 x1 y1`` in pixels as ``[B, K, 4]``."""
        return torch.cat([self.corner.flip(-1), (self.corner + self.sides).flip(-1)], dim=-1)

    def grown(self, margin: float) -> Rectangles:
        """Return rectangles that are larger by ``margin`` of their sides on each of the four."""
        return Rectangles(self.corner - margin * self.sides, (1 + 2 * margin) * self.sides)

    def area(self) -> Tensor:
        """Return the areas in pixels, ``[B, K]``."""
        return self.sides.prod(-1)

    def sampling(self, size: int, height: int, width: int) -> Sampling:
        """Return how a grid of ``size x size`` samples in each rectangle reads a canvas."""
        positions = self._samples(size)  # [B, K, 2, A]
        last = torch.stack(
            [positions.new_full((1,), n - 1) for n in (height, width)]
        )  # no copy from the host
        on_canvas = positions.clamp(min=positions.new_zeros(()), max=last)
        weights = interpolation(on_canvas, max(height, width))  # [B, K, 2, A, max(H, W)]
        inside = (1 - (positions - on_canvas).abs()).clamp(min=0)  # fades out over one pixel
        rows, columns = weights.unbind(2)
        return Sampling(on_canvas, _first(height, rows), _first(width, columns), *inside.unbind(2))

    def coverage(self, height: int, width: int) -> Profiles:
        """Return the share of each pixel that lies in each rectangle, exactly."""
        start = torch.arange(max(height, width), device=self.corner.device, dtype=self.corner.dtype)
        low, high = self.corner[..., None], (self.corner + self.sides)[..., None]  # [B, K, 2, 1]
        overlap = (torch.minimum(high, start + 1) - torch.maximum(low, start)).clamp(min=0)
        rows, columns = overlap.unbind(2)
        return Profiles(_first(height, rows), _first(width, columns))

    def scattered(self, size: int, height: int, width: int) -> Profiles:
        """Return what the weights of ``size x size`` bilinear samples add up to on each axis, at most 1.

        Differs from SuPAIR's released code, which clips the sum on the canvas instead of those on the axes.
        """
        weights = interpolation(self._samples(size), max(height, width)).sum(-2).clamp(max=1)
        rows, columns = weights.unbind(2)
        return Profiles(_first(height, rows), _first(width, columns))

    def draw(self, patches: Tensor, height: int, width: int) -> Tensor:
        """Draw ``patches [B, K, C, A, A]`` into their rectangles, each on a canvas of its own.

        Returns:
            ``[B, K, C, height, width]``; beyond its rectangle a patch goes on with the colour of its edge.
        """
        size = patches.shape[-1]
        pixels = torch.arange(max(height, width), device=patches.device, dtype=patches.dtype) + 0.5
        # Where the canvas's pixels lie, counted in samples: [B, K, 2, max(H, W)]
        positions = (pixels - self.corner[..., None]) * (size / self.sides[..., None]) - 0.5
        rows, columns = interpolation(positions.clamp(0, size - 1), size).unbind(2)
        return rows[..., None, :height, :] @ patches @ columns[..., None, :width, :].mT

    def _samples(self, size: int) -> Tensor:
        """Return where the samples lie, counted in the canvas's pixels: ``[B, K, 2, size]``."""
        unit = (torch.arange(size, device=self.corner.device, dtype=self.corner.dtype) + 0.5) / size
        return torch.addcmul(self.corner[..., None] - 0.5, self.sides[..., None], unit)


def _first(n: int, values: Tensor) -> Tensor:
    """Return the first n along the last axis; all are returned as they are, since a slice costs its gradient a copy."""
    return values if values.shape[-1] == n else values[..., :n]
