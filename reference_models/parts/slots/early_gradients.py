"""Backward passes that are done at once, so that no step of many keeps its graph until the end.

Refinement asks for the gradient of each step's loss with respect to the latents, and training asks for the gradient
of the same loss with respect to the decoder later. Both come out of one backward pass through the decoder; what is
left for later is to multiply them with a number. A model of I refinements then holds the activations of one decoded
image set instead of I + 1, and goes back through each once instead of twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def differentiated(
    function: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]], z: Tensor, parameters: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``function(z)`` with the first tensor's gradients computed already, and the graph freed.

    Args:
        function: From latents ``[B, ...]`` to values ``[B]``, each of its image alone, and to two other tensors.
        z: The latents.
        parameters: What else the values depend on; nothing else gets a gradient.

    Returns:
        The values, whose later gradient with respect to the parameters is right where all images weigh the same, as
        in a mean; and the other tensors, without gradient.
    """
    with torch.enable_grad():
        leaf = _leaf(z)
        values, one, other = function(leaf)
    gradients = torch.autograd.grad(values.sum(), [leaf, *parameters])
    known = _Known.apply(values.detach(), gradients, z, *parameters)
    return known, one.detach(), other.detach()


def _leaf(z: Tensor) -> Tensor:
    try:
        return z.detach().requires_grad_()
    except RuntimeError as error:  # torch.func's message tells users to rewrite the model
        raise RuntimeError("the loss takes gradients of its own, which vmap does not allow") from error


class _Known(torch.autograd.Function):
    """Values ``[B]`` whose gradients are known."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, gradients: Sequence[Tensor], *inputs: Tensor) -> Tensor:
        ctx.gradients = gradients
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *weights: Tensor) -> Any:
        (weight,) = weights  # [B]
        if weight.device.type == "cpu" and not bool((weight == weight[0]).all()):  # asking a GPU costs a wait
            raise RuntimeError(
                "the images weigh differently in the loss, but the decoder's gradients are summed already; "
                "expected a mean over images."
            )
        of_z, *of_parameters = ctx.gradients
        per_image = weight.view(-1, *(of_z.dim() - 1) * [1])
        needed = ctx.needs_input_grad[3:]
        return (
            None,
            None,
            per_image * of_z,
            *(weight[0] * g if need else None for g, need in zip(of_parameters, needed, strict=True)),
        )
