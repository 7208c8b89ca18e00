"""What must not be computed in bfloat16, where the rest may be."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function without autocast, its half-precision tensors widened to single precision.

    For stick-breaking, likelihoods and KLs of the slot VAEs, which cost little next to the convolutions: of 1 - 0.99,
    bfloat16 keeps 0.0117, and exponentials of sums over pixels lose all their digits.
    """

    @wraps(function)
    def widened(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next((x.device.type for x in args if isinstance(x, Tensor)), None)
        if device is None or not torch.is_autocast_enabled(device):
            return function(*args, **kwargs)
        with torch.autocast(device, enabled=False):
            return function(*map(_wide, args), **{k: _wide(v) for k, v in kwargs.items()})

    return widened


def _wide(value: Any) -> Any:
    narrow = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if narrow else value
