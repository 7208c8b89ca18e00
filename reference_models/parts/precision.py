"""What must not be computed in bfloat16 or TF32, where the rest may be.

`full_precision` is for functions whose inputs come from networks, and cost little next to these: of 1 - 0.99, bfloat16
keeps 0.0117, and exponentials of sums over pixels lose all their digits. `exact_products` and `product` are for sums of
products that nearly cancel: a leaf region of a sum-product network of 1250 pixels adds terms of some hundred nats, and
is off by a tenth of a nat with inputs rounded to TF32, by whole nats with bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function without autocast, its half-precision tensors widened to single precision."""

    @wraps(function)
    def widened(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next((x.device.type for x in args if isinstance(x, Tensor)), None)
        if device is None or not torch.is_autocast_enabled(device):
            return function(*args, **kwargs)
        with torch.autocast(device, enabled=False):
            return function(*map(wide, args), **{k: wide(v) for k, v in kwargs.items()})

    return widened


def wide(value: Any) -> Any:
    """Return a tensor of half precision in single precision, anything else as it is."""
    narrow = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if narrow else value


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Switch autocast, TF32 and bfloat16 products off, and back to what they were.

    A backward pass runs outside of the forward pass's contexts, so that it needs one of its own.
    """
    backend = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
    matmul = getattr(backend, "matmul", None)
    setting, full = ("fp32_precision", "ieee") if hasattr(matmul, "fp32_precision") else ("allow_tf32", False)
    before = getattr(matmul, setting, None)
    with torch.autocast(device.type, enabled=False):
        if before is None or before == full:  # older versions have no such switch on the CPU
            yield
            return
        setattr(matmul, setting, full)
        try:
            yield
        finally:
            setattr(matmul, setting, before)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a @ b`` of two matrices ``[n, k]``, ``[k, m]``, with a gradient in full precision too."""
    result: Tensor = _Product.apply(a, b)
    return result


class _Product(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        with exact_products(a.device):
            return a @ b

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        (gradient,) = gradients
        of_a = product(gradient, b.mT) if ctx.needs_input_grad[0] else None
        of_b = product(a.mT, gradient) if ctx.needs_input_grad[1] else None
        return of_a, of_b
