"""Likelihoods of an image that several slots paint, each with colours and a mask, in nats.

Letters: B images, K slots, C H W pixels.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

from reference_models.parts.precision import full_precision


def blend(colours: Tensor, log_masks: Tensor) -> Tensor:
    """Return the image that the slots make up, ``[B, C, H, W]``.

    Args:
        colours: ``[B, K, C, H, W]``.
        log_masks: ``[B, K, 1, H, W]``, whose exponentials sum to 1 over the slots.
    """
    return (log_masks.exp() * colours).sum(1)


class SlotLikelihood:
    """log p(x | slots), summed over pixels and channels (SRI, eqs. 3 and 4).

    `"gaussian"` is normal around the blended image. `"mixture"` lets each slot claim the pixel with the
    probability that its mask says, ``log sum_k m_k N(x; c_k, sd^2)``: for each channel alone as all released
    codes do, or jointly for the channels of a pixel as the equation reads.

    Args:
        kind: Which one.
        sd: Standard deviation of a value in [0, 1], the same for all pixels and slots.
        normalised: Whether ``-log(2 pi) / 2`` a value counts; without it, figures are no log densities.
        per_channel: Of the mixture, see above.

    Attributes:
        facts: What decides whether its figures can be compared (see `multiobj_data.scenes.Prediction`).
    """

    def __init__(
        self,
        kind: Literal["mixture", "gaussian"] = "mixture",
        sd: float = 0.7,
        normalised: bool = True,
        per_channel: bool = True,
    ) -> None:
        self.kind, self.sd, self.normalised, self.per_channel = kind, sd, normalised, per_channel
        mixture = "none" if kind == "gaussian" else "per-channel" if per_channel else "joint"
        self.facts = f"space=density; normalised={str(normalised).lower()}; sd={sd:g}; mixture={mixture}; pixel_range=1"

    @full_precision
    def __call__(self, images: Tensor, colours: Tensor, log_masks: Tensor) -> Tensor:
        """Return ``[B]``.

        Args:
            images: ``[B, C, H, W]`` in [0, 1].
            colours: ``[B, K, C, H, W]`` in [0, 1].
            log_masks: ``[B, K, 1, H, W]``, whose exponentials sum to 1 over the slots.
        """
        values = images[0].numel()
        if self.kind == "gaussian":
            fit = self._log_kernel(blend(colours, log_masks), images)  # [B, C, H, W]
        else:
            each = self._log_kernel(colours, images[:, None])  # [B, K, C, H, W]
            each = each if self.per_channel else each.sum(2, keepdim=True)
            fit = (log_masks + each).logsumexp(1)
        return fit.flatten(1).sum(1) - self.floor(values)

    def floor(self, values: int) -> float:
        """Return the error (negative log likelihood, nats) of a perfect reconstruction of so many values."""
        constant = 0.5 * math.log(2 * math.pi) if self.normalised else 0.0
        return values * (math.log(self.sd) + constant)

    def error_at(self, rmse: float, values: int) -> float:
        """Return the error in nats at which all values are off by ``rmse`` (where one slot owns each pixel)."""
        return self.floor(values) + values * 0.5 * (rmse / self.sd) ** 2

    def _log_kernel(self, colours: Tensor, images: Tensor) -> Tensor:
        return (colours - images).square() * (-0.5 / self.sd**2)
