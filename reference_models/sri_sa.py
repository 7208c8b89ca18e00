"""SRI-SA*: slots whose order is learnt with where they begin, instead of found by imagination (SRI, sec. 5.2).

One VAE, without SRI's two stages: Slot Attention whose slots begin at normals of their own gives the posterior of
slots in an order that is always the same; the scene variable and the autoregressive prior above them are SRI's. There
is nothing to roll out and to match, and no gradient is stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from reference_models.genesis_v2 import GenesisV2, GenesisV2Config
from reference_models.parts.slots.slot_attention import First


@dataclass(frozen=True, kw_only=True)
class SRISAConfig(GenesisV2Config):
    """Settings of `SRISA`: those of `GenesisV2` with other defaults."""

    about: ClassVar[str] = "sri-sa"

    grouping: Literal["colouring", "slot-attention"] = "slot-attention"  # SRI, sec. 5.2
    first_slots: First = "per-slot"  # SRI, sec. 5.2
    scene_variable: bool = True  # SRI, sec. 5.2
    geco_rate: float = 1e-6  # SRI A.4.2


class SRISA(GenesisV2):
    """SRI-SA*, as the authors' released code has it (``fixed_order_model.py``); the paper says it in a sentence.

    Differs from that code: the network between rounds of attention has 2 D hidden units, not D; KLs of slots are
    estimated at their samples, as the scene variable knows these.
    """

    config_type = SRISAConfig
