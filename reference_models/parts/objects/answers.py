"""From drawn objects to the masks and boxes of a `Prediction`."""

from __future__ import annotations

import torch
from torch import Tensor


def share_pixels(objects: Tensor, level: float) -> Tensor:
    """Share each pixel among the background and the objects by how much grey each paints.

    Args:
        objects: Each alone on its canvas, ``[B, K, C, H, W]`` in [0, 1].
        level: What the background paints everywhere: an object owns the pixels that it makes brighter.

    Returns:
        ``[B, 1 + K, H, W]``, summing to 1, the background first.
    """
    paint = objects.mean(2)  # [B, K, H, W]
    paint = torch.cat([torch.full_like(paint[:, :1], level), paint], dim=1)
    return paint / paint.sum(1, keepdim=True)


def tight_boxes(objects: Tensor, level: float) -> Tensor:
    """Return the tight boxes around what each object paints brighter than ``level``.

    Args:
        objects: Each alone on its canvas, ``[B, K, C, H, W]``.
        level: In [0, 1].

    Returns:
        ``x0 y0 x1 y1`` in pixels, half-open: ``[B, K, 4]``; NaN for an object that paints nothing so bright.
    """
    ink = objects.amax(2) > level  # [B, K, H, W]
    x0, x1 = _ends(ink.any(-2))
    y0, y1 = _ends(ink.any(-1))
    return torch.stack([x0, y0, x1, y1], dim=-1).to(objects.dtype)


def _ends(inked: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first true place and the one after the last of ``[..., n]``; NaN if there is none."""
    n = inked.shape[-1]
    places = torch.arange(n, device=inked.device, dtype=torch.float64)
    first = torch.where(inked, places, torch.inf).amin(-1)
    last = torch.where(inked, places, -torch.inf).amax(-1) + 1
    return tuple(torch.where(inked.any(-1), end, torch.nan) for end in (first, last))  # type: ignore[return-value]
