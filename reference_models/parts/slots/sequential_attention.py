"""GENESIS' attention: mask after mask by breaking a stick at every pixel, from latents that know those before.

Letters: B images, K slots, D latent size, H W pixels. All masks are kept as logarithms.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Independent
from torch.nn.functional import logsigmoid

from reference_models.parts.nets import diagonal_normal
from reference_models.parts.precision import full_precision
from reference_models.parts.slots.posterior import begin_surely, posterior_normal, raw_posterior_scale
from reference_models.parts.slots.prior import SlotLSTM


@full_precision
def stick_breaking_masks(logits: Tensor) -> Tensor:
    """Return the masks of K slots, each a share of what those before have left (Engelcke et al. 2020).

    ``m_k = sigmoid(a_k) prod_{j<k} (1 - sigmoid(a_j))``; the last slot takes all that is left, so that the masks
    sum to 1 and the last logit is not used.

    Args:
        logits: ``a``, ``[B, K, 1, H, W]``.

    Returns:
        log masks ``[B, K, 1, H, W]``.
    """
    taken, kept = logsigmoid(logits[:, :-1]), logsigmoid(-logits[:, :-1])
    nothing = torch.zeros_like(logits[:, :1])
    scope = torch.cat([nothing, kept.cumsum(1)], dim=1)  # log of what is left before slot k
    return scope + torch.cat([taken, nothing], dim=1)


class SequentialPosterior(nn.Module):
    """q(z_k | x, z_<k) of all mask latents: the first from the image, the others by an LSTM (Engelcke et al. 2020).

    Args:
        features: Size of what is read from the image.
        latents: D.
        size: Of the LSTM's state.
    """

    def __init__(self, features: int, latents: int, size: int) -> None:
        super().__init__()
        self.first = nn.Linear(features, 2 * latents)
        self.lstm = SlotLSTM(features + latents, size)
        self.next = nn.Linear(size, 2 * latents)

    def begin_surely(self, gain: float, sd: float) -> None:
        """See `posterior.begin_surely`: ``sd`` is the first standard deviation of all latents."""
        for output in (self.first, self.next):
            begin_surely(output, gain, raw_posterior_scale(sd))

    @full_precision
    def forward(self, features: Tensor, noise: Tensor) -> tuple[Independent, Tensor]:
        """Return q over ``[B, K]`` with event ``[D]``, and its sample.

        Args:
            features: ``[B, features]``.
            noise: Standard normal ``[B, K, D]``; zeros give the means.

        Returns:
            q, and z ``[B, K, D]``: each z_k is what the LSTM reads before it says q(z_k+1).
        """
        state = self.lstm.begin(features)
        first = posterior_normal(self.first(features))
        steps = [first]
        zs = [sampled(first, noise[:, 0])]
        for step_noise in noise[:, 1:].unbind(1):
            state = self.lstm.step(torch.cat([features, zs[-1]], dim=-1), state)
            steps.append(posterior_normal(self.next(state[0])))
            zs.append(sampled(steps[-1], step_noise))
        loc, scale = (
            torch.stack([getattr(q.base_dist, name) for q in steps], dim=1) for name in ("loc", "scale")
        )
        return diagonal_normal(loc, scale), torch.stack(zs, dim=1)


def sampled(q: Independent, noise: Tensor) -> Tensor:
    """Return the sample ``[..., D]`` of a diagonal normal that belongs to standard normal ``noise [..., D]``."""
    return torch.addcmul(q.base_dist.loc, q.base_dist.scale, noise)
