"""AIR-pPrior: AIR with a learnable prior in which each object knows those before it.

Xu et al., "Multi-objects Generation with Amortized Structural Regularization", NeurIPS 2019, eq. 4. The
posterior, the decoder and the estimators are AIR's; the settings below are all that differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reference_models.air import AIR
from reference_models.air_settings import AIRConfig


@dataclass(frozen=True, kw_only=True)
class AIRpPriorConfig(AIRConfig):
    """Settings of `AIRpPrior`: AIR's, with what AIR-ASR's paper and released code ("ASR code") set otherwise."""

    max_objects: int = 6  # ASR code
    prior: Literal["standard", "autoregressive"] = "autoregressive"  # eq. 4
    count_prior: Literal["geometric", "per-step", "categorical", "learned", "autoregressive"] = (
        "autoregressive"
    )
    doubt: float = 0.01  # ours: a learnable prior on the number does not speak against blank windows
    placing: Literal["log-normal", "squashed"] = "squashed"  # ASR code
    object_scale: float = 0.269  # ASR code: sigmoid(-1), 13.4 of 50 pixels
    object_scale_sd: float = 0.2236  # ASR code: variance 0.05 of the logit
    position_sd: float = 1.0  # ASR code: before tanh
    likelihood: Literal["gaussian", "bernoulli"] = "bernoulli"  # ASR code


class AIRpPrior(AIR):
    """AIR with an autoregressive, learnable prior on presence and place.

    Differs from the paper: N is enumerated unless another estimator is chosen, and the posterior doubts its
    decisions early on.
    """

    config_type = AIRpPriorConfig
    config: AIRpPriorConfig
