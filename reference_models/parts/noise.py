"""The noise that models draw."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def uniform_of(normal: Tensor) -> Tensor:
    """Turn standard normal noise into uniform noise in (0, 1) of the same shape."""
    return torch.special.ndtr(normal)


def draw(kind: Any, shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Draw noise of ``kind`` (`torch.randn` or `torch.rand`), with the type and device of ``like``."""
    noise: Tensor = kind(shape, generator=generator, device=generator.device, dtype=like.dtype)
    return noise.to(like.device)
