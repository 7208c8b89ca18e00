"""GECO: balance reconstruction and KL by a goal for the reconstruction error (Rezende & Viola, 2018).

While the error is above its goal, the reconstruction counts for more; once it is below, the KL does, until both
count alike and the loss is a negative ELBO. The literature writes that in two ways, which move a multiplier in
opposite directions:

- `"beta"` (GENESIS, GENESIS-v2, SRI): ``error + beta * KL``; beta falls while the error is above its goal.
- `"zeta"` (EfficientMORL): ``softplus(zeta) * error + KL``; zeta rises while the error is above its goal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from multiobj_data.errors import UsageError
from reference_models.base import Loss

Convention = Literal["beta", "zeta"]

ZETA_OF_ONE = 0.55
"""EfficientMORL's first and smallest zeta: softplus gives 1.005."""

LIMITS: dict[Convention, tuple[float, float]] = {"beta": (1e-10, 1e10), "zeta": (ZETA_OF_ONE, math.inf)}
"""Smallest and largest multiplier of the released codes."""


class Weights(NamedTuple):
    """What to multiply both sides of the loss with; 0-d tensors without gradient."""

    error: Tensor
    kl: Tensor


class Geco(nn.Module):
    """One controller: a goal, a running mean of the error, and the multiplier that follows.

    `weights` is read by the loss, `update` is called after the step; all state is in buffers, and so in
    the checkpoint. The multiplier's logarithm (beta) is kept in double precision: it moves by 1e-6 and less a
    step, which single precision would round away.

    Args:
        goal: Of the error (negative log likelihood), nats an image; nats a value if ``values`` is given.
        values: Pixels times channels of an image, if ``goal`` is nats a value.
        floor: The smallest error there can be, in the unit of ``goal``; a goal that is not above it is refused.
        convention: See the module.
        rate: How fast the multiplier follows: per nat (an image) and step, of log beta or of zeta.
        speed_up: Factor of the rate while the error is below its goal.
        decay: Of the running mean; its first value is the first error.
        begin: Updates before which both sides count 1 and nothing moves (EfficientMORL's plain ELBO).
        limits: Smallest and largest multiplier; those of `LIMITS` if not given.

    Raises:
        UsageError: The goal can never be met.
    """

    log_beta: Tensor
    zeta: Tensor
    average: Tensor
    updates: Tensor

    def __init__(
        self,
        goal: float,
        values: int | None = None,
        *,
        floor: float | None = None,
        convention: Convention = "beta",
        rate: float = 1e-5,
        speed_up: float = 10.0,
        decay: float = 0.99,
        begin: int = 0,
        limits: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        if floor is not None and not goal > floor:
            raise UsageError(
                f"geco: expected a goal above {floor:.6g}, the error of a perfect reconstruction, got {goal:g}, "
                "which can never be met; give a larger goal, or the likelihood that it was meant for."
            )
        self.goal = goal * (values or 1)  # nats an image
        self.convention = convention
        self.rate, self.speed_up, self.decay, self.begin = rate, speed_up, decay, begin
        self.limits = limits or LIMITS[convention]
        first = torch.tensor(0.0 if convention == "beta" else ZETA_OF_ONE, dtype=torch.float64)
        self.register_buffer("log_beta" if convention == "beta" else "zeta", first)
        self.register_buffer("average", torch.zeros(()))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def weights(self) -> Weights:
        """Return the factors of the error and of the KL for the next step."""
        one = torch.ones_like(self.average)
        if self.convention == "beta":
            return Weights(one, self.log_beta.exp().to(one.dtype))
        weight = softplus(self.zeta).to(one.dtype)
        return Weights(torch.where(self.updates < self.begin, one, weight), one)

    def loss(self, name: str, error: Tensor, costs: Mapping[str, Tensor]) -> Loss:
        """Return the balanced loss, with the multiplier as a term of its own that weighs nothing (to be logged).

        Args:
            name: Of the error's term, which `update` is to be given the mean of.
            error: Negative log likelihood ``[B]`` in nats.
            costs: Name -> KL ``[B]`` in nats.
        """
        weights = self.weights()
        multiplier = f"{name}_{self.convention}"
        shown = weights.kl if self.convention == "beta" else weights.error
        return Loss(
            {name: error, **costs, multiplier: shown.expand(len(error))},
            {name: weights.error, **dict.fromkeys(costs, weights.kl), multiplier: 0.0},
        )

    @torch.no_grad()
    def update(self, error: Tensor) -> None:
        """Take note of the error of the step just done.

        Args:
            error: Its batch mean in nats an image, a scalar; the same on all ranks.
        """
        self.updates += 1
        runs = self.updates > self.begin
        first = self.updates == self.begin + 1
        error = error.detach().to(self.average)
        moved = torch.where(first, error, torch.lerp(error, self.average, self.decay))
        self.average.copy_(torch.where(runs, moved, self.average))
        slack = self.goal - self.average.double()  # above 0: the goal is met
        step = torch.where(slack > 0, self.speed_up * self.rate, self.rate) * slack
        step = torch.where(runs, step, torch.zeros_like(step))
        low, high = self.limits
        if self.convention == "beta":
            self.log_beta.copy_((self.log_beta + step).clamp(math.log(low), math.log(high)))
        else:
            self.zeta.copy_((self.zeta - step).clamp(low, high))


def balanced(geco: Geco | None, name: str, error: Tensor, costs: Mapping[str, Tensor]) -> Loss:
    """Return `Geco.loss`, or the plain negative ELBO where there is no controller."""
    return Loss({name: error, **costs}) if geco is None else geco.loss(name, error, costs)
