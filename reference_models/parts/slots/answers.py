"""From what the slots paint to a `Prediction`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from multiobj_data.scenes import Prediction
from reference_models.parts.objects.answers import tight_boxes
from reference_models.parts.slots.likelihood import blend

AT_ONCE = 32
"""Images that `in_parts` decodes at once: what a decoder keeps of each slot is many times the image."""


def in_parts(decode: Callable[[Tensor], tuple[Tensor, Tensor]], z: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``decode(z)`` for slots ``z [B, K, D]``, without more than `AT_ONCE` images in memory at a time."""
    colours, masks = zip(*map(decode, z.split(AT_ONCE)), strict=True)
    return torch.cat(colours), torch.cat(masks)


def slot_prediction(
    colours: Tensor,
    log_masks: Tensor,
    slots: Tensor,
    log_likelihood: Tensor | None = None,
    likelihood_kind: str | None = None,
) -> Prediction:
    """Return a slot VAE's answer.

    A slot is there if it owns a pixel, that is, if its mask is the largest somewhere. No slot is called the
    background and nothing is counted: the models do not tell background slots from objects.

    Args:
        colours: ``[B, K, C, H, W]`` in [0, 1].
        log_masks: ``[B, K, 1, H, W]``.
        slots: The slots' codes (posterior means), ``[B, K, D]``.
        log_likelihood: Its bound in nats, ``[B]``.
        likelihood_kind: What it is: ``"elbo; space=density; ..."``.
    """
    owned = owned_pixels(log_masks.squeeze(2))  # [B, K, H, W]
    return Prediction(
        presence=owned.flatten(2).any(-1).to(slots.dtype),
        masks=log_masks.squeeze(2).exp(),
        boxes=tight_boxes(owned[:, :, None].to(slots.dtype), 0.5),
        reconstruction=blend(colours, log_masks).clamp(0, 1).movedim(1, -1),
        slots=slots,
        log_likelihood=log_likelihood,
        likelihood_kind=likelihood_kind,
    )


def owned_pixels(log_masks: Tensor) -> Tensor:
    """Return which pixels each slot owns, bool ``[B, K, H, W]``, for ``log_masks [B, K, H, W]``."""
    return one_hot(log_masks.argmax(1), log_masks.shape[1]).movedim(-1, 1).to(torch.bool)
