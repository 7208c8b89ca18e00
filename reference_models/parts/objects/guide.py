"""What says where SuPAIR's objects would be, one after the other (Stelzner et al. 2019, sec. 3.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.nn.functional import logsigmoid

from reference_models.base import ImageShape
from reference_models.parts.nets import mlp
from reference_models.parts.objects.counts import stick_breaking
from reference_models.parts.objects.eye import Eye
from reference_models.parts.objects.poses import POSE, PosePrior, rectangles_of
from reference_models.parts.precision import full_precision
from reference_models.parts.recurrent import SharedInputLSTM

FORGET = -3.0
"""Bias at first of the LSTM's gate that keeps what it knew: a twentieth of it."""


@dataclass(frozen=True)
class Posterior:
    """q(N, z_where | x), with one sample of z_where; objects in the order in which they were found."""

    decisions: Tensor  # [B, K], logits of "there is one more"
    mean: Tensor  # [B, K, 4]
    log_sd: Tensor  # [B, K, 4]
    z: Tensor  # [B, K, 4]

    @property
    def count(self) -> Categorical:
        """q(N | x), N = 0..K, batch ``[B]``."""
        return stick_breaking(self.decisions)

    def entropy(self) -> Tensor:
        """Return the entropy of each pose in nats: ``[B, K]``."""
        return (self.log_sd + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)


class Guide(nn.Module):
    """A recurrent network that finds an object in each step.

    With ``remaining`` it sees in each step, beside the whole image, what its objects leave of it, and begins by that
    alone, so that the second is found as the first was. Without, all steps see the whole image, as in
    the paper.

    Args:
        image_shape: ``(H, W, C)``.
        poses: The range that the means of poses are in.
        max_sd: The largest standard deviations of width, height, left, top; in pixels.
        filters: Output channels of the convolutions before the LSTM; without any it reads pixels.
        lstm_size: Of its state.
        hidden_size: Of the layer between state and answer.
        remaining: Whether it sees what its objects leave of the image.
        feedback: Whether a step knows the pose of the last.
    """

    _log_max_sd: Tensor

    def __init__(
        self,
        image_shape: ImageShape,
        poses: PosePrior,
        max_sd: Sequence[float],
        *,
        filters: Sequence[int],
        lstm_size: int,
        hidden_size: int,
        remaining: bool,
        feedback: bool,
    ) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.poses = poses
        self.remaining = remaining
        self.feedback = feedback
        self.look = Eye(image_shape, filters)
        features = self.look.features
        inputs = (POSE if feedback else 0) + (features if remaining else 0)
        self.lstm = SharedInputLSTM(features, inputs, lstm_size)
        self.find = mlp(lstm_size, [hidden_size], 1 + 2 * POSE, nn.Sigmoid)
        self.register_buffer("_log_max_sd", torch.tensor(max_sd).log(), persistent=False)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Draw the weights of the answer as SuPAIR's code does, and let the LSTM begin by what remains, if it sees it.

        Who knows of nothing else, neither memory nor pose nor the whole image, and finds one object, finds the next.
        """
        for layer in self.find:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.constant_(layer.bias, 0.1)  # SuPAIR code
        if self.remaining:
            size, pose = self.lstm.size, POSE if self.feedback else 0
            cast(nn.Linear, self.lstm.read_context).weight.zero_()
            self.lstm.read_step.weight[:, : size + pose] = 0
            self.lstm.read_step.bias[size : 2 * size] = FORGET

    def forward(self, images: Tensor, noise: Tensor, margin: float = 0.0) -> Posterior:
        """Return q(N, z_where | x) and the sample of z_where that belongs to ``noise``.

        Args:
            images: Float ``[B, C, H, W]`` in [0, 1].
            noise: Standard normal ``[B, K, 4]``; zeros give the means.
            margin: The part of its sides by which each object covers more of what remains than it is large.
        """
        seen = self.look(images)
        gates = self.lstm.gates(seen)
        zeros = gates.new_zeros(len(images), self.lstm.size)
        state, z = (zeros, zeros), torch.zeros_like(noise[:, 0])
        steps: list[Posterior] = []
        for step_noise in noise.unbind(1):
            if steps and self.remaining:
                images = self._without(z, images, margin)
                seen = self.look(images)
            state = self.lstm.step(gates, self._read(z, seen), state)
            steps.append(self._posterior(self.find(state[0]), step_noise))
            z = steps[-1].z
        fields = ([getattr(step, name) for step in steps] for name in ("decisions", "mean", "log_sd", "z"))
        return Posterior(*(torch.stack(values, dim=1) for values in fields))

    @torch.compiler.disable  # the margin is another number each step, for which all would be compiled anew
    def _without(self, z: Tensor, images: Tensor, margin: float) -> Tensor:
        """Return what objects at ``z [B, 4]``, and a margin around them, leave of ``images [B, C, H, W]``."""
        height, width, _ = self.image_shape
        return images * (1 - rectangles_of(z[:, None]).grown(margin).coverage(height, width).pixels)

    def _read(self, z: Tensor, seen: Tensor) -> Tensor:
        """Return what the LSTM reads in a step beside the image: of the last pose and of what is ``seen`` now."""
        pose = z / max(self.image_shape[:2]) if self.feedback else z[:, :0]
        return torch.cat([pose, seen], dim=-1) if self.remaining else pose

    @full_precision
    def _posterior(self, parameters: Tensor, noise: Tensor) -> Posterior:
        """Read the network's answer ``[..., 9]``; its poses have means in the prior's range."""
        decisions, raw_mean, raw_sd = parameters.split([1, POSE, POSE], dim=-1)
        mean = self.poses.spread(torch.sigmoid(raw_mean))
        log_sd = logsigmoid(raw_sd) + self._log_max_sd
        return Posterior(decisions.squeeze(-1), mean, log_sd, torch.addcmul(mean, log_sd.exp(), noise))
