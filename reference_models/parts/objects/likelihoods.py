"""Likelihoods of an image given a canvas, in nats.

The literature uses a density over grey values and a cross-entropy side by side; their figures cannot be compared.
"""

from __future__ import annotations

import math
from typing import Protocol

from torch import Tensor
from torch.nn.functional import mse_loss


class Likelihood(Protocol):
    """log p(x | canvas), summed over pixels and channels.

    Attributes:
        facts: What else than the bound decides whether its figures can be compared, as in
            `multiobj_data.scenes.Prediction.likelihood_kind`.
    """

    facts: str

    def __call__(self, canvas: Tensor, image: Tensor) -> Tensor:
        """Return ``[...]`` for a canvas and an image ``[..., P]``; the canvas may exceed 1 where objects overlap."""
        ...


class GaussianLikelihood:
    """Normal pixels around the plain sum of the objects (Eslami et al. 2016; Pyro's example).

    Args:
        sd: Standard deviation of a pixel in [0, 1].
    """

    def __init__(self, sd: float) -> None:
        self.sd = sd
        self.facts = f"space=density; normalised=true; sd={sd:g}; mixture=none; pixel_range=1"

    def __call__(self, canvas: Tensor, image: Tensor) -> Tensor:
        """See `Likelihood`."""
        error = mse_loss(canvas, image, reduction="none").sum(-1)
        constant = image.shape[-1] * math.log(self.sd * math.sqrt(2 * math.pi))
        return error * (-0.5 / self.sd**2) - constant


class BernoulliLikelihood:
    """Cross-entropy of grey values with the canvas clipped to [0, 1], as AIR-ASR's released code scores it.

    Not normalised over grey values: `x log c + (1 - x) log(1 - c)` is no density of x.
    """

    facts = "space=cross-entropy"
    floor = 1e-7  # the code's 1e-10 is lost in single precision

    def __call__(self, canvas: Tensor, image: Tensor) -> Tensor:
        """See `Likelihood`."""
        c = canvas.clamp(self.floor, 1 - self.floor)
        return (image * c.log() + (1 - image) * (1 - c).log()).sum(-1)
