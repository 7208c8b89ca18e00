"""Sums of products: for two children with I channels each, every sum mixes all I x I products of theirs.

In the linear domain ``S_o = sum_ij W_oij L_i R_j``. Everything here takes and gives logarithms, laid out with the
batch last: children ``[N, I, B]``, weights ``[N, O, I * I]``, for N regions at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from reference_models.parts.precision import exact_products


def log_einsum_exp(left: Tensor, right: Tensor, log_weights: Tensor) -> Tensor:
    """Mix all products of two children's channels, in log space (Peharz et al. 2020, "Einsum networks", sec. 3.2).

    Args:
        left: Log densities of the first child, ``[N, I, B]``.
        right: Of the second, ``[N, I, B]``.
        log_weights: ``[N, O, I * I]``; the pair (i, j) has index ``i I + j``.

    Returns:
        ``log sum_ij exp(log_weights + left_i + right_j)``, ``[N, O, B]``.
    """
    mixed: Tensor = _LogEinsumExp.apply(left, right, log_weights)
    return mixed


def max_product(left: Tensor, right: Tensor, log_weights: Tensor) -> Tensor:
    """Return the best product in place of their sum, ``[N, O, B]``; arguments as in `log_einsum_exp`."""
    pairs = pair_sums(left, right)  # [N, I * I, B]
    return (log_weights[..., None] + pairs[:, None]).amax(2)


def pair_sums(left: Tensor, right: Tensor) -> Tensor:
    """Return ``left_i + right_j`` for all pairs: ``[N, I * I, B]``."""
    return (left[:, :, None] + right[:, None]).flatten(1, 2)


class _LogEinsumExp(torch.autograd.Function):
    """The children are scaled by their best channel, contracted one after the other, and nothing large is kept.

    With ``l = exp(left - max)``, ``r`` alike and ``T_oi = sum_j W_oij r_j``, the mixture is ``S_o = sum_i T_oi l_i``.
    T ``[O, I, B]`` is as large as all that the plain gradient keeps; here it is computed again, region after region
    where a region's share fits a processor's cache.
    """

    @staticmethod
    def forward(left: Tensor, right: Tensor, log_weights: Tensor) -> Tensor:
        mixed = left.new_empty(*log_weights.shape[:2], left.shape[2])
        with exact_products(left.device):
            for part in _parts(left):
                first, second, most = _scaled(left[part], right[part])
                contracted = _contract(log_weights[part].exp(), second)  # [n, O, I, B]
                sums = contracted.mul_(first[:, None]).sum(2)  # [n, O, B]
                # The best pair is worth its weight at least: only a weight below 1e-38 can vanish.
                mixed[part] = sums.clamp_(min=torch.finfo(sums.dtype).tiny).log_().add_(most)
        return mixed

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _LogEinsumExpGradient.apply(*ctx.saved_tensors, *gradients)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Tensor, int]:
        return _as_more_regions(_LogEinsumExp.apply, info, in_dims, inputs), 0


class _LogEinsumExpGradient(torch.autograd.Function):
    """The gradient as a function of its own, so that `torch.func.vmap` finds it."""

    @staticmethod
    def forward(
        left: Tensor, right: Tensor, log_weights: Tensor, mixed: Tensor, gradient: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        of_left, of_right, of_weights = (torch.empty_like(each) for each in (left, right, log_weights))
        with exact_products(left.device):
            for part in _parts(left):
                first, second, most = _scaled(left[part], right[part])
                weights = log_weights[part].exp()
                of_sums = gradient[part] * (most - mixed[part]).exp_()  # dS_o = g_o / S_o: [n, O, B]
                contracted = _contract(weights, second)  # T: [n, O, I, B]
                of_left[part] = contracted.mul_(of_sums[:, :, None]).sum(1).mul_(first)
                of_contracted = torch.mul(of_sums[:, :, None], first[:, None], out=contracted)
                turned = weights.unflatten(2, (left.shape[1], -1)).flatten(1, 2)  # [n, O * I, I]
                of_contracted = of_contracted.flatten(1, 2)  # [n, O * I, B]
                of_right[part] = (turned.mT @ of_contracted).mul_(second)
                of_weights[part] = (of_contracted @ second.mT).view_as(weights).mul_(weights)
        return of_left, of_right, of_weights

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise NotImplementedError("log_einsum_exp: its second derivative is not implemented.")

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Any, Any]:
        return _as_more_regions(_LogEinsumExpGradient.apply, info, in_dims, inputs), (0, 0, 0)


def _parts(left: Tensor) -> Iterator[slice]:
    """Yield the regions to work on at once: one on a CPU, whose caches are small, else all."""
    regions = len(left)
    step = 1 if left.device.type == "cpu" else regions
    return (slice(start, start + step) for start in range(0, regions, step))


def _scaled(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return both children divided by their best channels, and the logarithm of what they were divided by."""
    left_most, right_most = left.amax(1, keepdim=True), right.amax(1, keepdim=True)  # [n, 1, B]
    return (left - left_most).exp_(), (right - right_most).exp_(), left_most + right_most


def _contract(weights: Tensor, second: Tensor) -> Tensor:
    """Return ``sum_j W_oij r_j``: ``[n, O, I, B]``."""
    n, channels, batch = second.shape
    return (weights.view(n, -1, channels) @ second).view(n, -1, channels, batch)


def _as_more_regions(
    apply: Any, info: Any, in_dims: tuple[int | None, ...], inputs: tuple[Tensor, ...]
) -> Any:
    """Treat a mapped axis as so many more regions."""
    whole = [
        each.expand(info.batch_size, *each.shape) if dim is None else each.movedim(dim, 0)
        for each, dim in zip(inputs, in_dims, strict=True)
    ]
    results = apply(*(each.flatten(0, 1) for each in whole))
    if isinstance(results, Tensor):
        return results.unflatten(0, (info.batch_size, -1))
    return tuple(result.unflatten(0, (info.batch_size, -1)) for result in results)
