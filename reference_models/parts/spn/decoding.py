"""From the root down: the most probable tree, a tree drawn at random, and what their leaves paint.

A tree of a sum-product network takes one product at every sum and both halves of it; it ends in one leaf for each
region of one replica (Zhao et al. 2016, "A unified approach for learning the parameters of sum-product networks").
Choosing the best at every sum gives the most probable explanation, drawing in proportion gives a posterior sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reference_models.parts.spn.layers import max_product, pair_sums
from reference_models.parts.spn.leaves import seen

if TYPE_CHECKING:
    from reference_models.parts.spn.network import SumProductNetwork

CHUNK = 64
"""Images at once in `mpe`, whose upward pass holds every product of every sum; bounds its memory."""

Choose = Callable[[Tensor], Tensor]
"""Log values ``[..., n]`` to one index of n each, ``[...]``."""


@torch.no_grad()
def mpe(
    network: SumProductNetwork, x: Tensor, visible: Tensor | None, *, maximise_hidden: bool = False
) -> Tensor:
    """Paint the means of the leaves in which the most probable tree ends (Vergari et al. 2018).

    With ``t`` a tree and hidden pixels h, ``t = argmax p(x_visible, t)``; with ``maximise_hidden``,
    ``t = argmax max_h p(x_visible, h, t)``. In both cases the means are the most probable pixels given t.

    Args:
        network: The network.
        x: ``[B, D]``.
        visible: ``[B, P]``, or ``None``.
        maximise_hidden: See above.

    Returns:
        ``[B, D]``.
    """
    painted = [x.new_empty(0, x.shape[1])]
    for rows in torch.arange(len(x), device=x.device).split(CHUNK):
        part = None if visible is None else visible[rows]
        leaves = network.leaves(x[rows], part)
        if maximise_hidden and part is not None:
            leaves = leaves + network.leaves.peaks(part)
        log_weights = network.log_weights()
        levels = network.levels(leaves, log_weights, max_product)
        replica, channel = descend(levels, log_weights, lambda scores: scores.argmax(-1))
        painted.append(network.leaves.of_leaves(network.leaves.mean, replica, channel))
    return torch.cat(painted)


@torch.no_grad()
def sample(network: SumProductNetwork, n: int, generator: torch.Generator) -> Tensor:
    """Draw ``n`` images from the network: ``[n, D]``."""
    log_weights = network.log_weights()
    channels = [network.config.leaves, *(len(logits[0, 0]) for logits in network.logits)]
    certain = log_weights[-1].new_zeros(())  # where nothing is observed, every density is 1
    levels = [
        certain.expand(network.config.replicas, 2 * weights.shape[1], size, n)
        for weights, size in zip(log_weights, channels, strict=True)
    ]
    return _draw(network, levels, log_weights, generator)


@torch.no_grad()
def sample_given(
    network: SumProductNetwork, x: Tensor, visible: Tensor, generator: torch.Generator
) -> Tensor:
    """Draw hidden pixels from ``p(hidden | visible)`` and put them beside the visible ones: ``[B, D]``."""
    log_weights = network.log_weights()
    levels = network.levels(network.leaves(x, visible), log_weights)
    drawn = _draw(network, levels, log_weights, generator)
    x, visible = seen(x.to(drawn.dtype), network.leaves.of_values(visible))
    return torch.where(visible == 1, x, torch.lerp(drawn, x, visible))


def _draw(
    network: SumProductNetwork,
    levels: Sequence[Tensor],
    log_weights: Sequence[Tensor],
    generator: torch.Generator,
) -> Tensor:
    """Draw a tree, then the pixels of its leaves: ``[B, D]``."""

    def choose(scores: Tensor) -> Tensor:
        probabilities = scores.softmax(-1).flatten(0, -2)
        return torch.multinomial(probabilities, 1, generator=generator).view(scores.shape[:-1])

    leaves = network.leaves
    tree = descend(levels, log_weights, choose)
    mean, variance = leaves.of_leaves(leaves.mean, *tree), leaves.of_leaves(leaves.variance, *tree)
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
    return mean + variance.sqrt() * noise


def descend(levels: Sequence[Tensor], log_weights: Sequence[Tensor], choose: Choose) -> tuple[Tensor, Tensor]:
    """Choose a tree from the root down.

    Args:
        levels: Log values as `SumProductNetwork.levels` returns them; the root's own are not needed.
        log_weights: As `SumProductNetwork.log_weights` returns them.
        choose: Picks one product of a sum, from ``log weight + left + right``.

    Returns:
        The tree's replica ``[B]`` and its leaf in each leaf region ``[B, K]``.
    """
    *below, top = levels[: len(log_weights)]  # top: the halves of the image, [R, 2, I, B]
    size = top.shape[2]
    scores = log_weights[-1][:, 0, 0, :, None] + pair_sums(top[:, 0], top[:, 1])  # [R, I * I, B]
    chosen = choose(scores.flatten(0, 1).mT)  # [B]
    replica, channel = chosen // size**2, _halves(chosen[:, None] % size**2, size)  # [B], [B, 2]
    batch = torch.arange(len(replica), device=replica.device)
    for values, weights in zip(reversed(below), reversed(log_weights[:-1]), strict=True):
        size, regions = values.shape[2], torch.arange(weights.shape[1], device=replica.device)
        children = values.permute(3, 0, 1, 2)[batch, replica]  # [B, 2 * regions, I]
        pairs = children[:, 0::2, :, None] + children[:, 1::2, None]  # [B, regions, I, I]
        scores = weights[replica[:, None], regions, channel] + pairs.flatten(2)
        channel = _halves(choose(scores), size)  # [B, 2 * regions]
    return replica, channel


def _halves(pair: Tensor, size: int) -> Tensor:
    """Return the channels ``[B, 2 n]`` of both halves from the index of the pair, ``[B, n]``."""
    return torch.stack([pair // size, pair % size], dim=-1).flatten(1)
