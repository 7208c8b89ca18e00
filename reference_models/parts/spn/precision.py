"""Matrix products in the precision of their arguments, whatever the process allows elsewhere.

A leaf region of 1250 pixels adds terms of some hundred nats that nearly cancel: with inputs rounded to TF32 the
sum is off by a tenth of a nat, with bfloat16 by whole nats.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
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
        with full_precision(a.device):
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
