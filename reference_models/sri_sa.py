"""SRI-SA*: SRI with Slot Attention whose slots begin at normals of their own, for a fixed order (SRI, sec. 5.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from reference_models.sri import SRI
from reference_models.sri_settings import SRIConfig, Stage


@dataclass(frozen=True, kw_only=True)
class SRISAConfig(SRIConfig):
    """Settings of `SRISA`: SRI's with other defaults."""

    about: ClassVar[str] = "sri-sa"

    segregation: Stage = "slot-attention"
    segregation_settings: tuple[str, ...] = ("first_slots=per-slot",)  # SRI, sec. 5.2
    align: bool = False  # slots are meant to have an order by themselves
    cross_loss: bool = (
        False  # the term that the paper leaves out, as we read it: without a rollout there is none
    )


class SRISA(SRI):
    """SRI-SA*; there is no rollout to take an order from."""

    config_type = SRISAConfig
