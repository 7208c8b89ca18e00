"""The settings of SRI, and the first stage that they choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from multiobj_data.configuration import build
from multiobj_data.errors import UsageError
from reference_models.base import ImageShape
from reference_models.genesis_v2 import GenesisV2
from reference_models.slot_vae import SegregationModel
from reference_models.slot_vae_settings import SlotVAEConfig

Stage = Literal["genesis-v2", "slot-attention", "emorl"]


def stage_kind(name: Stage) -> tuple[type[SegregationModel], Mapping[str, Any]]:
    """Return the class of a first stage, and the settings that make it one."""
    if name == "emorl":
        from reference_models.emorl import EfficientMORL  # it and its parts are needed by this stage alone

        return EfficientMORL, {}
    grouping = "colouring" if name == "genesis-v2" else "slot-attention"
    return GenesisV2, {"grouping": grouping}


@dataclass(frozen=True, kw_only=True)
class SRIConfig(SlotVAEConfig):
    """Settings of `SRI`; those that its first stage has too, by the same name, are the stage's as well.

    Attributes:
        width: Channels of encoder and decoder; EfficientMORL as first stage has ``encoder_channels`` and
            ``decoder_channels`` instead, among the `segregation_settings`.
        segregation: The first stage.
        segregation_settings: ``name=value`` of the first stage alone, over those shared with it.
        scene_variable: Whether a variable of the whole scene stands above the slots; false: ablation a.
        scene_size: Its size.
        scene_layers: Layers of attention of the encoder that infers it.
        lstm_size: State of the prior's recurrent network.
        align: Whether slots are brought into the order of the rollout; false, with `cross_loss`: ablation b.
        cross_loss: Whether the rollout is held to the slots (the auxiliary KL); false: ablation c.
        first_gain: Of the first weights (Xavier).
    """

    about: ClassVar[str] = "sri"

    geco_rate: float = 1e-6  # SRI A.4.2
    width: int = 64  # SRI code: channels of encoder and decoder
    # First stage
    segregation: Stage = "genesis-v2"  # SRI, sec. 5
    segregation_settings: tuple[
        str, ...
    ] = ()  # name=value: of the first stage alone, over those shared with it
    # Scene and order
    scene_variable: bool = True  # false: ablation a
    scene_size: int = 128  # SRI A.4.1: twice the slot size
    scene_layers: int = 3  # SRI A.4.1
    lstm_size: int = 256  # SRI A.4.1
    align: bool = True  # false (with cross_loss): ablation b
    cross_loss: bool = True  # false: ablation c
    first_gain: float = 0.02  # SRI code: of the first weights, Xavier's normal; the paper says Xavier's

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cross_loss and not self.align:
            raise UsageError(
                f"{self.about}: cross_loss compares slots with the rollout's of the same place, which needs align; "
                "unset cross_loss too."
            )
        for text in self.segregation_settings:
            if "=" not in text:
                raise UsageError(f"{self.about}: segregation_settings: expected name=value, got {text!r}.")

    def build_segregation(self, image_shape: ImageShape) -> SegregationModel:
        """Return the first stage, with what it shares with this by name, and its slots independent a priori."""
        kind, made = stage_kind(self.segregation)
        known = {field.name for field in fields(kind.config_type)}
        shared = {field.name for field in fields(self)} - {"scene_variable"}
        values = {name: getattr(self, name) for name in known & shared}
        if "independent_prior" in known:
            values["independent_prior"] = True
        own = dict(text.split("=", 1) for text in self.segregation_settings)
        return kind(build(kind.config_type, {**values, **made, **own}, kind.__name__), image_shape)
