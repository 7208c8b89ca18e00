"""How tensors of released weights are laid out as ours: each way with the shapes that it expects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Size, Tensor

Shape = Sequence[int]
"""Sizes of a tensor's axes, where `ANY` fits all."""

ANY = -1


@dataclass(frozen=True)
class Layout:
    """One way to make a tensor of ours from tensors of theirs.

    Attributes:
        shapes: The shapes that theirs must have, for one of ours with this shape.
        join: Theirs to ours, up to a reshape.
    """

    shapes: Callable[[Size], Sequence[Shape]]
    join: Callable[[Sequence[Tensor]], Tensor]


def _rows(ours: Size) -> list[list[int]]:
    """Return the shapes of two tensors whose rows, one after the other, are ours."""
    return [[ours[0] // 2, *ours[1:]]] * 2


def _gates(theirs: Sequence[Tensor]) -> Tensor:
    """Return the rows of an LSTM's gates in our order (input, forget, output, new); PyTorch's has new before output."""
    admit, keep, new, show = theirs[0].chunk(4)
    return torch.cat([admit, keep, show, new])


def _ramps(theirs: Sequence[Tensor]) -> Tensor:
    """Return weights of positions for ours (right, left, bottom, top).

    EfficientMORL's code makes (right, left, top, bottom) of a map whose first axis it takes for the columns, but
    adds it to features whose first axis are the rows: what it calls right is the distance to the bottom.
    """
    bottom, top, left, right = theirs[0].unbind(1)
    return torch.stack([right, left, bottom, top], dim=1)


def _pair(theirs: Sequence[Tensor]) -> Tensor:
    """Return the two units of a DualGRU, from (gates, new) of the first unit and then of the second, as products."""
    gates_1, new_1, gates_2, new_2 = theirs
    return torch.stack([torch.cat([gates_1, new_1]).mT, torch.cat([gates_2, new_2]).mT])


def _pair_shapes(ours: Size) -> list[list[int]]:
    _, inputs, gates = ours  # [2, inputs, 3 size]
    size = gates // 3
    return [[2 * size, inputs], [size, inputs]] * 2


def _pair_bias(theirs: Sequence[Tensor]) -> Tensor:
    """Return the biases of a DualGRU's units, from those of both units' gates and of both units' new states."""
    gates, new = (bias.unflatten(0, (2, -1)) for bias in theirs)
    return torch.cat([gates, new], dim=1)


def _pair_bias_shapes(ours: Size) -> list[list[int]]:
    size = ours[-1] // 3
    return [[4 * size], [2 * size]]


def _running_mean(theirs: Sequence[Tensor]) -> Tensor:
    """Return a batch normalisation's mean for a convolution without the bias that theirs has before it."""
    *means, bias = theirs
    return torch.cat(means) - bias


LAYOUTS: dict[str, Layout] = {
    "same": Layout(lambda ours: [ours], lambda theirs: theirs[0]),
    # Two layers that read the same, joined to one.
    "stacked": Layout(lambda ours: _rows(ours), torch.cat),  # type: ignore[arg-type]
    "gates": Layout(lambda ours: [ours], _gates),
    # A vector that they keep as a row, or a linear layer as a convolution of one pixel.
    "row": Layout(lambda ours: [[1, *ours]], lambda theirs: theirs[0]),
    "pixel": Layout(lambda ours: [[*ours, 1, 1]], lambda theirs: theirs[0]),
    # A linear layer as a convolution as large as the map that it reads.
    "grid": Layout(lambda ours: [[ours[0], ANY, ANY, ANY]], lambda theirs: theirs[0]),
    "ramps": Layout(lambda ours: [ours], _ramps),
    "pair": Layout(_pair_shapes, _pair),
    "pair-bias": Layout(_pair_bias_shapes, _pair_bias),
    "running-mean": Layout(lambda ours: [*_rows(ours), ours], _running_mean),
}
"""Name in ``released.toml`` -> how."""
