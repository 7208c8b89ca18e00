"""AIR-ASR: AIR-pPrior trained with what is known of the scenes (amortized structural regularisation).

Xu et al., "Multi-objects Generation with Amortized Structural Regularization", NeurIPS 2019, sec. 4: the loss
is the negative ELBO and a penalty for every constraint that the posterior breaks (`parts.objects.constraints`). Give
``allowed_counts`` for the regulariser of the number, ``constraints`` for those of the layout.
"""

from __future__ import annotations

from dataclasses import dataclass

from reference_models.air import AIR
from reference_models.air_pprior import AIRpPriorConfig


@dataclass(frozen=True, kw_only=True)
class AIRASRConfig(AIRpPriorConfig):
    """Settings of `AIRASR`."""

    constraints: tuple[str, ...] = ("overlap*1", "inside*1")  # ASR, sec. 6: lambda_1 to lambda_5


class AIRASR(AIR):
    """AIR-pPrior with structural regularisers.

    Differs from the paper as AIR-pPrior does; where N is enumerated, the expectations of the regularisers over N are
    exact, too.
    """

    config_type = AIRASRConfig
    config: AIRASRConfig
