"""First weights with which slots that all begin alike take a part of the picture each, from the first step on.

With usual first weights Slot Attention sees all pixels alike: features hardly vary, scores of pixels differ by
hundredths, and so all slots are given the mean of the picture. Then all paint the same blend, which teaches neither
masks nor attention anything, since no slot is better for a pixel than another, for thousands of steps (RESULTS.md).
GENESIS-v2 never sees that: its attention begins with the places of pixels alone (its embedding's gate is 0).
Here the same is done for EfficientMORL's hierarchy: features of the first step say above all where a pixel is, scores
are sharp, what a slot is given reaches its latent, and the latent's noise is small beside it. All weights remain free.
"""

from __future__ import annotations

import torch
from torch import nn

from reference_models.parts.nets import inverse_softplus, output_layer
from reference_models.parts.slots.dual_gru import DualGRU
from reference_models.parts.slots.hierarchy import PixelEncoder, SlotHierarchy

# Found on sprites of 32x32 (RESULTS.md). The first is what matters: at 0.7, as in the other layers, little is gained.
_PLACES = (
    6.0  # standard deviation of the weights of places, so that they vary three times as much as what is seen
)
_SHARPNESS = 6.0  # of the keys: scores of a pixel with the slots differ by some 6
_VALUES = 3.0
_MEAN_GAIN = 0.5  # of what is added to the means
_SD = 0.1  # of the latents after one layer; each further one makes them surer


@torch.no_grad()
def attend_to_places_first(encoder: PixelEncoder, hierarchy: SlotHierarchy) -> None:
    """Give an encoder of pixels and the hierarchy that reads it these first weights."""
    for part in (encoder, hierarchy.ask, hierarchy.adjust_mean, hierarchy.adjust_scale):
        for layer in part.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
    nn.init.xavier_normal_(output_layer(encoder.read).weight)
    nn.init.normal_(encoder.project.weight, std=_PLACES)
    encoder.project.bias.copy_(-0.5 * encoder.project.weight.sum(1))  # the middle of the picture is 0
    _keep_variance(output_layer(hierarchy.ask))
    _keep_variance(hierarchy.keys, _SHARPNESS)
    _keep_variance(hierarchy.values, _VALUES)
    _follow_updates(hierarchy.update)
    output_layer(hierarchy.adjust_mean).weight.mul_(_MEAN_GAIN)
    scale = output_layer(hierarchy.adjust_scale)
    scale.weight.zero_()
    scale.bias.fill_(inverse_softplus(_SD**2))  # raw scales are variances before softplus


def _keep_variance(layer: nn.Linear, gain: float = 1.0) -> None:
    nn.init.normal_(layer.weight, std=gain * layer.in_features**-0.5)


def _follow_updates(unit: DualGRU) -> None:
    """Make the state what the update says rather than what it was."""
    nn.init.normal_(unit.read, std=unit.read.shape[1] ** -0.5)
    nn.init.normal_(unit.recall, std=0.5 * unit.size**-0.5)
    nn.init.zeros_(unit.recall_bias)
    nn.init.zeros_(unit.read_bias)
    unit.read_bias[..., unit.size : 2 * unit.size] = -1.0  # of the gate that keeps
