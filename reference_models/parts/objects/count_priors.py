"""Priors on the number of objects, as the go-or-stop decisions that AIR's posterior also takes.

A prior is the logits of p(object t is there | those before are), ``[K]``; `parts.objects.counts.stick_breaking` turns
them into p(N). Any distribution over 0..K can be written so (`decisions_of`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from multiobj_data.errors import UsageError
from reference_models.parts.objects.counts import geometric_prior

CERTAIN = 100.0
"""Logit of a decision that the prior takes for granted, as AIR-ASR's code has it for fixed counts."""


def decisions_of(log_p: Tensor) -> Tensor:
    """Return the decisions' logits ``[..., K]`` of log p(n), n = 0..K, ``[..., K + 1]``; it need not be normalised."""
    tail = log_p.flip(-1).logcumsumexp(-1).flip(-1)  # log P(N >= n)
    return (tail[..., 1:] - log_p[..., :-1]).clamp(-CERTAIN, CERTAIN)


def geometric(k: int, ratio: float) -> Tensor:
    """Return the decisions of p(n) ∝ ``ratio ** n`` on 0..k, float64 (Eslami et al. 2016; Pyro's example)."""
    return decisions_of(geometric_prior(k, ratio).logits)


def per_step(k: int, odds: float) -> Tensor:
    """Return k equal decisions with these odds of one more object: geometric with the rest at k, float64."""
    return torch.full((k,), math.log(odds), dtype=torch.float64)


def check_weights(about: str, k: int, weights: Sequence[float]) -> None:
    """Raise unless these are ``about``'s weights of 0, 1, ..., at most k objects.

    Raises:
        UsageError: They are not.
    """
    if not (weights and len(weights) <= k + 1 and min(weights) >= 0 and 0 < sum(weights) < math.inf):
        raise UsageError(
            f"{about}: count_weights: expected up to {k + 1} weights of 0, 1, ... objects, not all 0, got {weights}."
        )


def categorical(k: int, weights: Sequence[float]) -> Tensor:
    """Return the decisions of p(n) ∝ ``weights[n]``, float64; counts beyond the last weight are impossible."""
    padded = torch.zeros(k + 1, dtype=torch.float64)
    padded[: len(weights)] = torch.as_tensor(list(weights), dtype=torch.float64)
    logits = decisions_of(padded.clamp(min=math.exp(-2 * CERTAIN)).log())
    # Past the last possible count every decision is "stop", whatever the rounding says.
    logits[int(padded.nonzero().max()) :] = -CERTAIN
    return logits


@dataclass(frozen=True)
class Annealing:
    """How the odds of one more object fall from a start to their final value.

    Attributes:
        kind: ``"log-linear"``: the log odds fall by equal steps (Akhundov's AIR); ``"exponential"``: the
            probability falls by equal factors (Kosiorek's); ``"linear"``: the odds fall by equal steps.
        start: Odds before.
        begin: Steps at ``start``.
        steps: Steps from ``start`` to the end.
    """

    kind: Literal["none", "linear", "exponential", "log-linear"] = "none"
    start: float = 1e4
    begin: int = 0
    steps: int = 1

    def odds(self, end: float, step: float) -> float:
        """Return the odds at a training step; ``end`` after the last."""
        if self.kind == "none":
            return end
        done = min(max((step - self.begin) / self.steps, 0.0), 1.0)
        if self.kind == "linear":
            return self.start + (end - self.start) * done
        if self.kind == "log-linear":
            return math.exp(math.log(self.start) * (1 - done) + math.log(end) * done)
        probability = (self.start / (1 + self.start)) ** (1 - done) * (end / (1 + end)) ** done
        return probability / (1 - probability)
